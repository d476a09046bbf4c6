#!/usr/bin/env bash
# What sources and documents refer to is there: documents that comments name, with their numbered section; relative links of
# markdown files, with their heading; and paths in backticks in documents.
set -euo pipefail
cd "${GSQ_SOURCE:-$(dirname "$0")/..}"
bad=0 seen=0
# Names that stand for a file of the user's, or for one that a script writes.
placeholders=' OUT.md PROVENANCE.md '

missing() { # WHERE WHAT
    echo "$1: $2"
    bad=$((bad + 1))
}

folders=()
for folder in app arch lib host formats shaders tests scripts cmake packaging examples tools .github; do
    [[ ! -d $folder ]] || folders+=("$folder")
done
sources=$(find "${folders[@]}" CMakeLists.txt Dockerfile -type f -not -path '*/corpus/*' -not -name '*.md' -size -200k | sort)
pages=$(find . -name '*.md' -not -path './build*' -not -path './.git/*' | sed 's,^\./,,' | sort)

# "## 3. Two objectives" is section 3.
has_section() { # PAGE NUMBER
    grep -qE "^## $2\." "$1"
}

# Documents that anything names: by the path from the top folder, or by a bare name there.
while IFS=: read -r file line found; do
    name=${found%% *} section=
    name=${name#here/} # a script's "$here/docs/..."
    [[ $found != *' '* ]] || section=${found##* }
    [[ $placeholders != *" $name "* && $name != /* && $name != */../* && $name != ../* ]] || continue
    # A path in a folder that the tree has not is one of an installation or of a test's own.
    [[ $name != */* || -d ${name%%/*} || -d $(dirname "$file")/${name%%/*} ]] || continue
    seen=$((seen + 1))
    if [[ ! -f $name && ! -f $(dirname "$file")/$name ]]; then
        missing "$file:$line" "names $name, which is not there"
    elif [[ -n $section ]] && [[ -f $name ]] && grep -qE '^## [0-9]+\.' "$name" && ! has_section "$name" "$section"; then
        missing "$file:$line" "names section $section of $name, which has none of that number"
    fi
done < <(
    # shellcheck disable=SC2086 # lists of names without blanks
    grep -noHE '[A-Za-z0-9_./-]*[A-Za-z0-9_-]\.md\b( [0-9]+\b)?' $sources $pages
)

# Names of documents that lie in no repository.
# shellcheck disable=SC2086
if words=$(grep -nE '\b(DESIGN|METHOD|FORMATS|PLATFORM|SPEED|GPUS|MODELS|STYLE)(\.md| [0-9]+\b| section)' $sources $pages | grep -v '^tests/links.sh:'); then
    missing "$words" "names a document that is not in the tree"
fi

# The anchor that GitHub makes of a heading.
slug() {
    tr '[:upper:]' '[:lower:]' <<<"$1" | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g'
}
has_anchor() { # PAGE ANCHOR
    local heading
    while IFS= read -r heading; do
        [[ $(slug "$heading") != "$2" ]] || return 0
    done < <(sed -nE 's/^#+ +(.*)/\1/p' "$1")
    return 1
}
for page in $pages; do
    while IFS=: read -r line target; do
        target=${target#*](} target=${target%)}
        [[ $target != *://* && $target != mailto:* ]] || continue
        seen=$((seen + 1))
        path=${target%%#*}
        where=$page
        [[ -z $path ]] || where=$(dirname "$page")/$path
        if [[ ! -e $where ]]; then
            missing "$page:$line" "links to $target, which is not there"
        elif [[ $target == *'#'* && $where == *.md ]] && ! has_anchor "$where" "${target#*#}"; then
            missing "$page:$line" "links to $target: there is no such heading"
        fi
    done < <(grep -noE '\]\([^) ]+\)' "$page" || true)
done

# Paths in backticks: `host/quant/method/gptq.c`, `tests/`. Patterns and placeholders are left out.
while IFS=: read -r page line path; do
    path=${path//\`/}
    [[ $path != *'*'* && $path != *[A-Z][A-Z]* && $path != *'{'* ]] || continue
    seen=$((seen + 1))
    # `formats/read/checkpoint_in` stands for its header and source.
    [[ -e $path || -e $path.h || -e $path.c ]] || missing "$page:$line" "names $path, which is not there"
done < <(
    # shellcheck disable=SC2086
    grep -noHE '`(app|arch|lib|host|formats|shaders|tests|scripts|cmake|docs|bench|packaging|examples|tools|models)/[A-Za-z0-9_./*{}-]*`' $pages
)

if [[ $seen -lt 100 ]]; then
    echo "only $seen references found: the test looks in the wrong place"
    exit 1
fi
echo "$seen references, $bad to nothing"
[[ $bad -eq 0 ]]
