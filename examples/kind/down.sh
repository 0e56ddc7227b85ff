#!/usr/bin/env bash
# Removes the cluster with everything in it.
set -euo pipefail
kind delete cluster --name tasktracker-try
