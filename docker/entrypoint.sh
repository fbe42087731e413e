#!/usr/bin/env bash
# Runs a command in the workspace: colcon's setup file sources the distribution below it as well.
set -eo pipefail  # not -u: setup files ask for variables that are not set
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=/dev/null
source "${MOBILE_SAM_ROS_INSTALL:-$here/install}/setup.bash" --
exec "$@"
