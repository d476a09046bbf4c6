/* Which experts a token goes through, and how much each counts. */
#ifndef MODEL_ROUTER_H
#define MODEL_ROUTER_H

#include "arch/config.h"

/* ids[used] <- the experts of one token, weights[used] <- what their outputs are multiplied by. z [n]: the router's logits;
 * bias [n] (NULL: none) is added to the probabilities where they are compared, not where they weigh; of GATING_CHOSEN it is the
 * logits' own. Among equals the lower
 * number is taken. In double precision: results are the host's, the same on every device that gives the same z. Experts of groups
 * that are not kept are never chosen, whatever their scores are. room: [2 * n]. */
void route_token(const struct expert_config *x, const float *z, const float *bias, uint16_t *ids, float *weights,
                 double *room);

#endif
