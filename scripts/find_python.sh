#!/bin/sh
# Prints the first Python that this package and an Airflow run on.
#
#   scripts/find_python.sh AIRFLOW BELOW CANDIDATE...
#
# A name on PATH proves nothing (version managers leave names that do not run), so each candidate is run.
set -u
airflow=$1 below=$2
shift 2

found=''
for candidate in "$@"; do
    version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
    minor=${version#3.}
    minor=${minor%%.*}
    case $version in 3.*) ;; *) minor=0 ;; esac
    if [ "$minor" -lt 11 ] || [ "$minor" -ge "${below#3.}" ]; then
        found="$found; $candidate is $version"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
        found="$found; $candidate is $version without its venv module (on Debian: apt-get install python3-venv)"
    else
        printf '%s\n' "$candidate"
        exit 0
    fi
done

cat >&2 <<END
No suitable Python: airflow-provider-fluxomail needs Python 3.11 or newer, and Airflow $airflow runs on Python below $below.
Tried $*${found:+:}${found#;}${found:+.}
Install one, or name one with PYTHON=/path/to/python.
END
exit 1
