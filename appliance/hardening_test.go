package main

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/finterra/finpay/pci/custody"
)

func TestSettingsAreAddedToThoseThatAreThere(t *testing.T) {
	const (
		runtimeHas = "GODEBUG=" + runtimeRegisters
		heapHas    = "GLIBC_TUNABLES=" + heapTunables
	)
	for _, c := range []struct {
		environment, want []string
		complete          bool
	}{
		{nil, []string{runtimeHas, heapHas}, false},
		{[]string{"A=b"}, []string{"A=b", runtimeHas, heapHas}, false},
		{[]string{"GLIBC_TUNABLES=", "GODEBUG="}, []string{runtimeHas, heapHas}, false},
		{[]string{heapHas, "A=b"}, []string{"A=b", runtimeHas, heapHas}, false},
		{[]string{heapHas, "A=b", runtimeHas}, []string{"A=b", runtimeHas, heapHas}, true},
		{[]string{runtimeHas, "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.perturb=165"}, []string{runtimeHas, heapHas}, true},
		{[]string{"GODEBUG=gctrace=1,asyncpreemptoff=0", "GLIBC_TUNABLES=glibc.malloc.arena_max=2:glibc.malloc.perturb=165"},
			[]string{"GODEBUG=gctrace=1," + runtimeRegisters, "GLIBC_TUNABLES=glibc.malloc.arena_max=2:" + heapTunables}, false},
		{[]string{"GLIBC_TUNABLES=glibc.malloc.tcache_count=7:glibc.cpu.x86_shstk=on"}, []string{runtimeHas, "GLIBC_TUNABLES=glibc.cpu.x86_shstk=on:" + heapTunables}, false},
	} {
		got, complete := withSettings(c.environment)
		if !slices.Equal(got, c.want) || complete != c.complete {
			t.Errorf("%q: %q, %v, want %q, %v", c.environment, got, complete, c.want, c.complete)
		}
		if again, complete := withSettings(got); !complete || !slices.Equal(again, got) {
			t.Errorf("%q would be changed again, to %q", got, again)
		}
	}
}

// childVariable makes the test binary a process whose safeguards are looked at.
const childVariable = "FINPAY_TEST_SAFEGUARDS"

// TestSafeguardsOfAChild is what the child of another test does; it tests nothing by itself.
func TestSafeguardsOfAChild(t *testing.T) {
	switch os.Getenv(childVariable) {
	case "":
		t.Log("only as a child of TestSafeguardsAreReadBack")
		return
	case "harden":
		if _, err := harden(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range safeguards {
		detail, ok := s.held()
		t.Logf("%s: %v, %s", s.name, ok, detail)
	}
	_, again := os.LookupEnv(startedAgain)
	t.Logf("again: %v, %d", again, os.Getpid())
}

func childIs(t *testing.T, what string, environment ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSafeguardsOfAChild$", "-test.v")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, tunablesVariable+"=") || strings.HasPrefix(v, runtimeVariable+"=")
	}), childVariable+"="+what)
	cmd.Env = append(cmd.Env, environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Each check is shown a process in which its safeguard does not hold, too.
func TestSafeguardsAreReadBack(t *testing.T) {
	bare := childIs(t, "look")
	for _, want := range []string{"registers: false", "heap: false, a freed block of 64 bytes keeps", "dumpable: false, PR_GET_DUMPABLE 1", "memlock: false, VmLck 0", "again: false"} {
		if !strings.Contains(bare, want) {
			t.Errorf("%q is not in\n%s", want, bare)
		}
	}
	hardened := childIs(t, "harden")
	for _, want := range []string{"registers: true", "heap: true", "core: true, RLIMIT_CORE 0, at most 0", "dumpable: true, PR_GET_DUMPABLE 0", "memlock: true, VmLck", "again: true"} {
		if !strings.Contains(hardened, want) {
			t.Errorf("%q is not in\n%s", want, hardened)
		}
	}
	if equipped := childIs(t, "harden", tunablesVariable+"="+heapTunables, runtimeVariable+"="+runtimeRegisters); !strings.Contains(equipped, "heap: true") || !strings.Contains(equipped, "again: false") {
		t.Errorf("a process that has the tunables started itself again:\n%s", equipped)
	}
	if half := childIs(t, "look", tunablesVariable+"=glibc.malloc.perturb=165"); !strings.Contains(half, "heap: false, a freed block of 64 bytes keeps") {
		t.Errorf("the thread's cache was not noticed:\n%s", half)
	}
	if looped := childIs(t, "harden", startedAgain+"=1"); !strings.Contains(looped, "heap: false") {
		t.Errorf("a process that was started again started itself again:\n%s", looped)
	}
}

func TestCoreLimitIsReadBack(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	detail, ok := coreDumpsOff()
	if ok != (limit == unix.Rlimit{}) {
		t.Errorf("%v for %+v: %s", ok, limit, detail)
	}
}

func TestLockedMemoryIsEnoughOrNot(t *testing.T) {
	const capable, incapable = "CapEff:\t000001ffffffffff\n", "CapEff:\t0000000000000000\n"
	for _, c := range []struct {
		status string
		limit  uint64
		want   bool
	}{
		{"Name:\tfinpay\nVmLck:\t    1024 kB\n" + incapable, custody.LockedMemory, true},
		{"VmLck:\t    1024 kB\n" + incapable, unix.RLIM_INFINITY, true},
		{"VmLck:\t    1024 kB\n" + incapable, custody.LockedMemory - 1, false},
		{"VmLck:\t    1024 kB\n" + capable, 0, true},
		{"VmLck:\t    1023 kB\n" + capable, unix.RLIM_INFINITY, false},
		{incapable, unix.RLIM_INFINITY, false},
		{"", 0, false},
	} {
		if detail, ok := memoryLocked(c.status, c.limit); ok != c.want || detail == "" {
			t.Errorf("%q with a limit of %d: %v, %s", c.status, c.limit, ok, detail)
		}
	}
}

func TestSwapIsSeen(t *testing.T) {
	const heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for text, want := range map[string]bool{"": false, heading: false, heading + "/dev/sda2  partition\t8388604\t0\t-2\n": true, heading + "/swapfile file 1 1 -2": true} {
		if hasSwap(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestAControlGroupWithoutSwapIsFound(t *testing.T) {
	mount := t.TempDir()
	for group, limit := range map[string]string{"a.slice": "max\n", "a.slice/b.service": "0\n", "a.slice/c.service": "1024\n", "a.slice/d": ""} {
		if err := os.MkdirAll(filepath.Join(mount, group), 0o700); err != nil {
			t.Fatal(err)
		}
		if limit == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(mount, group, "memory.swap.max"), []byte(limit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for groups, want := range map[string]string{
		"0::/a.slice/b.service\n":            "/a.slice/b.service",
		"4:memory:/x\n0::/a.slice/b.service": "/a.slice/b.service",
		"0::/a.slice/b.service/inner\n":      "/a.slice/b.service",
		"0::/a.slice/c.service\n":            "",
		"0::/a.slice/d\n":                    "",
		"0::/\n":                             "",
		"4:memory:/a.slice/b.service\n":      "",
		"":                                   "",
	} {
		if group, ok := withoutSwap(mount, groups); group != want && ok || ok != (want != "") {
			t.Errorf("%q: %q, %v", groups, group, ok)
		}
	}
}

func TestASafeguardThatDoesNotHoldIsLogged(t *testing.T) {
	var out bytes.Buffer
	logSafeguards(slog.New(slog.NewTextHandler(&out, nil)), []standing{{Name: "core", OK: true, Detail: "off"}, {Name: "swap", Detail: "there is some", means: "switch it off"}})
	text := out.String()
	for _, want := range []string{"level=WARN", "safeguard=swap", `remedy="switch it off"`, "read_back.core=off", `read_back.swap="there is some"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Count(text, "level=WARN") != 1 {
		t.Errorf("%s", text)
	}
}
