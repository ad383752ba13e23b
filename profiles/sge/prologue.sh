# What every job does first, read by bash: make this site's Python run. Yours to edit; if it ends with an error, the job does.

# UCL Computer Science: the Python that the environment was made with. Nothing where there is none.
python=/share/apps/source_files/python/python-3.11.9.source
[ ! -r "$python" ] || source "$python"

# Project space is mounted when it is first asked for; name what your jobs read:
# ls -d /SAN/mygroup/myproject > /dev/null
