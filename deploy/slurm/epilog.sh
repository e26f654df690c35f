#!/bin/sh
# Slurm's Epilog for JobWatt: adds a job's end to the file that prolog.sh wrote, and removes files
# of jobs that ended long ago. It never fails a job, whatever happens to it.

trap 'exit 0' EXIT HUP INT TERM
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

folder=${JOBWATT_JOB_DIRECTORY:-/run/jobwatt/jobs}
closed='^,"ended": '

case ${SLURM_JOB_ID:-} in
  '' | 0* | *[!0-9]*) exit 0 ;;
esac
now=$(date +%s)
file=$folder/$SLURM_JOB_ID.json
temporary=$folder/.$SLURM_JOB_ID.$$

# Without a Prolog before, Slurm tells most of it now.
[ -f "$file" ] || sh "${0%/*}/prolog.sh"

umask 077
if [ -f "$file" ] && ! grep -q "$closed" "$file"; then
  if {
    sed '$d' "$file" &&
      echo ",\"ended\": $now" &&
      case ${SLURM_JOB_EXIT_CODE2:-} in
        '' | *[!0-9:]*) ;;
        *) echo ",\"exit_code\": \"$SLURM_JOB_EXIT_CODE2\"" ;;
      esac &&
      echo '}'
  } >"$temporary"; then
    mv -f "$temporary" "$file"
  else
    rm -f "$temporary"
  fi
fi

# Older than a day, or before the last thousand: what has ended. And what a full disk left.
find "$folder" -type f -name '[1-9]*.json' -mtime +0 -exec grep -q "$closed" {} \; -exec rm -f {} \;
# Nobody but root names files here, and these names are digits.
# shellcheck disable=SC2012
ls -t "$folder" | sed -n '1,1000d; /^[1-9][0-9]*\.json$/p' | while read -r name; do
  grep -q "$closed" "$folder/$name" && rm -f "$folder/$name"
done
find "$folder" -type f -name '.[1-9]*' -mtime +0 -exec rm -f {} \;
exit 0
