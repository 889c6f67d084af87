#!/bin/sh
# Runs a command, and says every half minute that it still does.
"$@" &
command=$!
trap 'kill "$command" 2>/dev/null' INT TERM
seconds=0
while kill -0 "$command" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    [ $((seconds % 30)) -eq 0 ] && echo "  still at it after $seconds s"
done
wait "$command"
