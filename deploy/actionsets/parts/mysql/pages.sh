# Copies of pages, as all tools of this family make them: their positions, by what they leave in a directory.
checkpoint() { sed -n "s/^$1 = //p" "$2"/*_checkpoints; }
said_ok() { tail -n 1 "$work/log" | grep -q 'completed OK!' || { tail -n 20 "$work/log" >&2; fail "$1 did not say that it completed"; }; }
