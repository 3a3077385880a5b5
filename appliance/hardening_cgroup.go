package main

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// withoutSwap looks for the control group (version 2) in /proc/PID/cgroup, or one above it, that allows no swap.
func withoutSwap(mount, groups string) (group string, ok bool) {
	for line := range strings.Lines(groups) {
		own, found := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !found {
			continue
		}
		for group = path.Clean("/" + own); ; group = path.Dir(group) {
			limit, err := os.ReadFile(filepath.Join(mount, group, "memory.swap.max"))
			if err == nil && strings.TrimSpace(string(limit)) == "0" {
				return group, true
			}
			if group == "/" {
				return "", false
			}
		}
	}
	return "", false
}
