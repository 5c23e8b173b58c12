# What is mounted here beside what the operator and the runtime bring is what the method's targetVolumes say: one path a line.
mounts() {
  sed -E 's/^([^ ]+ ){4}([^ ]+) .*/\2/' /proc/self/mountinfo | sort -u |
    grep -vE '^/($|(proc|sys|dev)(/|$)|etc/|run/|var/run/|dp-manager|dp_downward|(usr/)?bin/datasafed|backupdata)' || true
}
