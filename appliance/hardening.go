package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/finterra/finpay/pci/custody"
)

// safeguard keeps what is in the process's memory from those who have the machine but not the process. It counts only by
// what the system says when it is asked back.
type safeguard struct {
	name  string
	by    string                          // what switches it on
	set   func() error                    // nil where the process cannot
	held  func() (detail string, ok bool) // read back
	means string                          // when it does not hold: what follows, and what to change
	vital bool                            // nothing is served without it
}

// safeguards are in the order in which they are switched on.
var safeguards = []safeguard{
	{
		name: "registers", by: runtimeVariable + ", by which the process starts itself again", set: startAgain, held: registersNotSaved,
		means: "the runtime may save a register with digits in it on a stack that nobody wipes. Start the process with " + runtimeVariable + "=" + runtimeRegisters,
	},
	{
		name: "heap", by: tunablesVariable + ", likewise", held: freedBlocksOverwritten,
		means: "what a PKCS#11 library frees keeps its content until it is used again. Start the process with " + tunablesVariable + "=" + heapTunables + " under glibc",
	},
	{
		name: "core", by: "RLIMIT_CORE 0, soft and hard", set: noCoreDumps, held: coreDumpsOff, vital: true,
		means: "a core dump would hold cards. Set LimitCORE=0 in the systemd unit",
	},
	{
		name: "dumpable", by: "PR_SET_DUMPABLE 0", set: notDumpable, held: dumpableOff, vital: true,
		means: "other processes of the same user can read this one's memory, and a core_pattern that is a pipe gets its core",
	},
	{
		name: "memlock", by: "RLIMIT_MEMLOCK raised to its hard limit, mlock", set: lockCardMemory, held: cardMemoryLocked, vital: true,
		means: fmt.Sprintf("cards could not be kept out of swap, and none is taken then. Set LimitMEMLOCK=64M in the systemd unit (--ulimit memlock=67108864 of a container); %d MiB are needed, and what the PKCS#11 library locks", custody.LockedMemory>>20),
	},
	{
		name: "swap", by: "MemorySwapMax=0 of the systemd unit, or no swap at all", held: notSwapped,
		means: "what libraries keep of requests may be written to disk. Set MemorySwapMax=0 in the systemd unit, or swapoff -a",
	},
}

// standing is how one safeguard stands; its JSON form is documented in docs/operations.md.
type standing struct {
	Name     string `json:"name"`
	By       string `json:"by"`
	OK       bool   `json:"ok"`
	Detail   string `json:"detail"` // what the system says of it
	Required bool   `json:"required,omitempty"`

	means string
}

// sentence says what is wrong.
func (s standing) sentence() string { return s.Name + ": " + s.Detail + ". If so, " + s.means }

// harden switches all safeguards on and reads them back. The first of them may start the process again, in its place: call
// it before anything else. An error means that one without which nothing is served does not hold.
func harden() ([]standing, error) {
	var all []standing
	var failed []error
	for _, s := range safeguards {
		var refused error
		if s.set != nil {
			refused = s.set()
		}
		now := standing{Name: s.name, By: s.by, Required: s.vital, means: s.means}
		now.Detail, now.OK = s.held()
		if !now.OK && refused != nil {
			now.Detail += " (" + refused.Error() + ")"
		}
		if !now.OK && s.vital {
			failed = append(failed, errors.New(now.sentence()))
		}
		all = append(all, now)
	}
	if len(failed) > 0 {
		return all, fmt.Errorf("the process cannot be protected: %w", errors.Join(failed...))
	}
	return all, nil
}

// logSafeguards writes one line of all, and a warning for each that does not hold.
func logSafeguards(log *slog.Logger, all []standing) {
	fields := make([]any, 0, len(all))
	for _, s := range all {
		fields = append(fields, slog.String(s.Name, s.Detail))
		if !s.OK {
			log.Warn("a safeguard of the process's memory does not hold", "safeguard", s.Name, "detail", s.Detail, "remedy", s.means)
		}
	}
	log.Info("safeguards of the process's memory", slog.Group("read_back", fields...))
}

func noCoreDumps() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

func coreDumpsOff() (string, bool) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err.Error(), false
	}
	return fmt.Sprintf("RLIMIT_CORE %s, at most %s", size(limit.Cur), size(limit.Max)), limit == unix.Rlimit{}
}

func notDumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

func dumpableOff() (string, bool) {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return err.Error(), false
	}
	return fmt.Sprintf("PR_GET_DUMPABLE %d", dumpable), dumpable == 0
}

// lockCardMemory raises the limit as far as it goes, since nobody knows what the PKCS#11 library locks beside, and locks
// the memory of single cards now: too low a limit must not be found out by the first shopper.
func lockCardMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	return custody.LockMemory()
}

// cardMemoryLocked wants the cards' memory locked, and room for the rest. The limit does not bind who has CAP_IPC_LOCK.
func cardMemoryLocked() (string, bool) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err.Error(), false
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error(), false
	}
	return memoryLocked(string(status), limit.Cur)
}

const capIPCLock = 14 // linux/capability.h

func memoryLocked(status string, limit uint64) (string, bool) {
	locked, err := strconv.ParseUint(strings.TrimSuffix(statusField(status, "VmLck"), " kB"), 10, 64)
	if err != nil {
		return "/proc/self/status has no VmLck", false
	}
	locked <<= 10
	capabilities, _ := strconv.ParseUint(statusField(status, "CapEff"), 16, 64)
	unbound := capabilities>>capIPCLock&1 == 1
	detail := fmt.Sprintf("VmLck %s, RLIMIT_MEMLOCK %s", size(locked), size(limit))
	if unbound {
		detail += ", which CAP_IPC_LOCK lifts"
	}
	return detail, locked >= custody.LockedAtOnce && (unbound || limit >= custody.LockedMemory)
}

// statusField returns a field of /proc/PID/status (proc_pid_status(5)).
func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func size(n uint64) string {
	switch {
	case n == unix.RLIM_INFINITY:
		return "unlimited"
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return strconv.FormatUint(n, 10)
}

// notSwapped holds where the machine has no swap, or the process's control group, or one above it, may use none.
func notSwapped() (string, bool) {
	swaps, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, os.ErrNotExist) { // a kernel without CONFIG_SWAP
		return "this kernel has no swap", true
	}
	if err != nil {
		return err.Error(), false
	}
	if !hasSwap(string(swaps)) {
		return "no swap in /proc/swaps", true
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err.Error(), false
	}
	if group, ok := withoutSwap("/sys/fs/cgroup", string(groups)); ok {
		return "memory.swap.max of " + group + " is 0", true
	}
	return "there is swap, and memory.swap.max is not 0", false
}

// hasSwap reports whether /proc/swaps has a line below its heading.
func hasSwap(swaps string) bool { return strings.Count(strings.TrimSpace(swaps), "\n") > 0 }
