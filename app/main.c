#include <stdio.h>

int main(void)
{
    puts("gsq " GSQ_VERSION);
    return 0;
}
