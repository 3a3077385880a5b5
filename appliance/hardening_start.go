package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Go's runtime interrupts a goroutine that runs for long by a signal, and keeps all its registers on its stack, which nobody
// wipes. A number of sixteen digits that is just being copied is in one of them. Without such signals a goroutine is asked to
// pause where it calls a function, with nothing in its vector registers.
const (
	runtimeVariable  = "GODEBUG"
	runtimeRegisters = "asyncpreemptoff=1"
)

// startedAgain says to a process that it is the second one, whatever it finds in its environment.
const startedAgain = "FINPAY_STARTED_AGAIN"

// startAgain starts the process again, under the same process id, where its environment lacks what is read when a program
// begins. Then it does not return.
func startAgain() error {
	environment, complete := withSettings(os.Environ())
	if complete || os.Getenv(startedAgain) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", unix.Exec(self, os.Args, append(environment, startedAgain+"=1")))
}

// withSettings returns the environment with ours beside what is there. complete means that they were there.
func withSettings(environment []string) (changed []string, complete bool) {
	changed, registers := withVariable(environment, runtimeVariable, ",", runtimeRegisters)
	changed, heap := withVariable(changed, tunablesVariable, ":", heapTunables)
	return changed, registers && heap
}

// withVariable returns the environment with ours, settings of the form name=value, beside those that a variable has.
func withVariable(environment []string, name, separator, ours string) (changed []string, complete bool) {
	wanted := strings.Split(ours, separator)
	var there []string
	for _, variable := range environment {
		value, ok := strings.CutPrefix(variable, name+"=")
		if !ok {
			changed = append(changed, variable)
			continue
		}
		there = strings.Split(value, separator)
	}
	complete = !slices.ContainsFunc(wanted, func(setting string) bool { return !slices.Contains(there, setting) })
	there = slices.DeleteFunc(there, func(setting string) bool {
		key, _, _ := strings.Cut(setting, "=")
		return setting == "" || slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(w, key+"=") })
	})
	return append(changed, name+"="+strings.Join(append(there, wanted...), separator)), complete
}

// registersNotSaved says what the runtime was started with. That no signal comes cannot be tried in a moment.
func registersNotSaved() (string, bool) {
	settings := os.Getenv(runtimeVariable)
	return runtimeVariable + "=" + settings, slices.Contains(strings.Split(settings, ","), runtimeRegisters)
}
