# What every job does first, read by bash: make this site's Python run. Yours to edit; if it ends with an error, the job does.

# Where Python comes from modules, the one that the environment was made with, for example:
# source /etc/profile && module load python3/3.11
