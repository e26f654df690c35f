#!/bin/sh
# Slurm's Prolog for JobWatt: writes down what slurmd knows of a job, in <folder>/<job id>.json,
# before the job begins. README.md says how to set it up.
#
# It never fails a job, whatever happens to it, and trusts nothing that a user wrote: names and
# comments may hold anything, and are written as JSON strings, byte by byte.

trap 'exit 0' EXIT HUP INT TERM
# slurmd sets no search path; bytes are bytes in this locale.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

folder=${JOBWATT_JOB_DIRECTORY:-/run/jobwatt/jobs}

case ${SLURM_JOB_ID:-} in
  '' | 0* | *[!0-9]*) exit 0 ;;
esac

if [ ! -d "$folder" ]; then
  umask 022
  mkdir -p "${folder%/*}"
  umask 077
  mkdir -p "$folder"
fi
# Comments are the business of their users, and of the exporter, which reads as root.
umask 077

# Slurm's own time is the same on all nodes of the job.
now=''
[ "${SLURM_SCRIPT_CONTEXT:-}" = epilog_slurmd ] || now=$(date +%s)
export now

temporary=$folder/.$SLURM_JOB_ID.$$
# One member a line, the comma before it: epilog.sh adds to the end. Lines of our own cannot be
# forged, since no string has a line break in it.
if awk '
  function quoted(text, most,    at, byte, out) {
    text = substr(text, 1, most)
    for (at = 1; at <= length(text); at++) {
      byte = substr(text, at, 1)
      out = out ((byte in escape) ? escape[byte] : byte)
    }
    return "\"" out "\""
  }
  function text(key, name, most) {
    if (ENVIRON[name] != "") print ",\"" key "\": " quoted(ENVIRON[name], most ? most : 256)
  }
  function number(key, value) {
    if (value ~ /^[0-9]+$/ && length(value) <= 12) print ",\"" key "\": " (value + 0)
  }
  BEGIN {
    CONVFMT = OFMT = "%.0f"
    for (at = 1; at < 32; at++) escape[sprintf("%c", at)] = sprintf("\\u%04x", at)
    escape[sprintf("%c", 127)] = "\\u007f"
    escape["\""] = "\\\""
    escape["\\"] = "\\\\"

    print "{\"version\": 1"
    print ",\"id\": " quoted(ENVIRON["SLURM_JOB_ID"], 20)
    number("restarts", ENVIRON["SLURM_JOB_RESTART_COUNT"])
    text("sluid", "SLURM_JOB_SLUID")
    text("cluster", "SLURM_CLUSTER_NAME")
    number("uid", ENVIRON["SLURM_JOB_UID"])
    text("user", "SLURM_JOB_USER")
    text("name", "SLURM_JOB_NAME")
    text("account", "SLURM_JOB_ACCOUNT")
    text("partition", "SLURM_JOB_PARTITION")
    text("qos", "SLURM_JOB_QOS")
    text("comment", "SLURM_JOB_COMMENT", 4096)
    text("cpus_per_node", "SLURM_JOB_CPUS_PER_NODE")
    text("gpus", "SLURM_JOB_GPUS")
    started = ENVIRON["SLURM_JOB_START_TIME"]
    number("started", started != "" ? started : ENVIRON["now"])
    number("deadline", ENVIRON["SLURM_JOB_END_TIME"])
    print "}"
  }' >"$temporary"; then
  mv -f "$temporary" "$folder/$SLURM_JOB_ID.json"
else
  rm -f "$temporary"
fi
exit 0
