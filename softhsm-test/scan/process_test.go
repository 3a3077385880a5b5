package scan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childVariable makes the test binary a process that keeps in its memory what comes on its standard input.
const childVariable = "FINPAY_TEST_KEEPS"

func TestMain(m *testing.M) {
	if where := os.Getenv(childVariable); where != "" {
		keep(where)
		return
	}
	os.Exit(m.Run())
}

// veil hides a plant on its way, so that no other copy of it is in the child than the one that it makes.
func veil(b []byte) {
	for i := range b {
		b[i] ^= 0xA7
	}
}

func keep(where string) {
	in := bufio.NewReader(os.Stdin)
	var n int
	if _, err := fmt.Fscanln(in, &n); err != nil {
		panic(err)
	}
	text := make([]byte, max(n, 1))
	if where == "locked" {
		var err error
		if text, err = unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			panic(err)
		}
		if err := errors.Join(unix.Mlock(text), unix.Madvise(text, unix.MADV_DONTDUMP), unix.Madvise(text, unix.MADV_WIPEONFORK)); err != nil {
			panic(err)
		}
	}
	if _, err := io.ReadFull(in, text[:n]); err != nil {
		panic(err)
	}
	veil(text[:n])
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = in.ReadByte() // until the other side closes
	veil(text[:n])
}

// keeper starts a process that has text in its memory.
func keeper(t *testing.T, where string, text []byte) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+where)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	veiled := slices.Clone(text)
	veil(veiled)
	if _, err := fmt.Fprintf(in, "%d\n%s", len(veiled), veiled); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd.Process.Pid
}

func TestEachEncodingIsFoundInTheMemoryOfAProcess(t *testing.T) {
	var cards []Card
	var text []byte
	for i, e := range encodings {
		cards = append(cards, marked(100+i, 16))
		for _, plant := range plants[e.name](cards[i]) {
			text = append(append(append(text, "before"...), plant...), "after"...)
		}
	}
	text = append(text, "&cvv=738&"...)
	s := New(cards...)
	for where, kind := range map[string]Kind{"heap": GoHeap, "locked": Locked} {
		found, err := s.Process(keeper(t, where, text))
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range encodings {
			if !slices.ContainsFunc(found.Hits, func(h Hit) bool {
				return h.Encoding == e.name && (h.Card == truncated(cards[i].Number) || h.Card == aCard) && h.Kind == kind
			}) {
				t.Errorf("%s is not found in the %s", e.name, kind)
			}
		}
		if !slices.ContainsFunc(found.Hits, func(h Hit) bool { return h.Encoding == "security code under a label" }) {
			t.Error("the labelled security code is not found")
		}
		if found.Bytes < 1<<20 || found.By[kind] == 0 {
			t.Errorf("%d bytes were read: %v", found.Bytes, found.By)
		}
		if len(found.Of(kind)) == 0 || len(found.Of(Stack)) > 0 {
			t.Errorf("%v", found.Hits)
		}
	}
	clean, err := s.Process(keeper(t, "heap", []byte("nothing")))
	if err != nil || len(clean.Hits) > 0 {
		t.Errorf("in a process without cards: %v, %v", clean.Hits, err)
	}
}

func TestAProcessGoesOnAfterItWasRead(t *testing.T) {
	pid := keeper(t, "heap", []byte("nothing"))
	if err := Freeze(pid); err != nil {
		t.Fatal(err)
	}
	if state(t, pid) != "T" {
		t.Errorf("frozen, its state is %s", state(t, pid))
	}
	if _, err := New(marked(1, 16)).Process(pid); err != nil {
		t.Fatal(err)
	}
	for state(t, pid) == "T" { // SIGCONT is on its way
	}
	if err := Freeze(1 << 22); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a process that is not there: %v", err)
	}
}

func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
}

func TestMappingsAreToldApart(t *testing.T) {
	const exe = "/usr/local/bin/finpay"
	for line, want := range map[string]Kind{
		"00400000-01000000 r-xp 00000000 08:01 1234   /usr/local/bin/finpay":   Unreadable,
		"01000000-02000000 r--p 00c00000 08:01 1234   /usr/local/bin/finpay":   Unreadable,
		"02000000-02100000 rw-p 01c00000 08:01 1234   /usr/local/bin/finpay":   Executable,
		"02100000-02200000 rw-p 00000000 00:00 0      [heap]":                  CHeap,
		"c000000000-c000400000 rw-p 00000000 00:00 0  [anon: Go: heap]":        GoHeap,
		"c000000000-c000400000 rw-p 00000000 00:00 0 ":                         GoHeap,
		"c000400000-c004000000 ---p 00000000 00:00 0 ":                         Unreadable,
		"7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ":                     CHeap,
		"7f0000021000-7f0004000000 ---p 00000000 00:00 0 ":                     Unreadable,
		"7f1234567000-7f1234dff000 rw-p 00000000 00:00 0 ":                     Anonymous,
		"7f1235000000-7f1235100000 r--p 00000000 08:01 99  /usr/lib/libc.so.6": File,
		"7f1235100000-7f1235200000 rw-p 00000000 08:01 99  /usr/lib/a b.so":    File,
		"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0   [stack]":            Stack,
		"7ffc00100000-7ffc00104000 r--p 00000000 00:00 0   [vvar]":             Unreadable,
		"7ffc00104000-7ffc00106000 r-xp 00000000 00:00 0   [vdso]":             File,
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]": Unreadable,
	} {
		m, ok := parseMapping(line, exe)
		if !ok || m.Kind != want || m.Start >= m.End {
			t.Errorf("%s: %+v, %v, want %s", line, m, ok, want)
		}
	}
	for _, line := range []string{"", "Size:  4 kB", "VmFlags: rd wr mr", "zz-01 rw-p 0 0:0 0", "Rss: 1 2 3 4"} {
		if m, ok := parseMapping(line, exe); ok {
			t.Errorf("%q is a mapping: %+v", line, m)
		}
	}
	arena := Mapping{Start: cArena, End: cArena + 4096, Kind: CHeap}
	if !continues(arena, Mapping{Start: cArena + 4096, End: cArena + 8192, Kind: Anonymous}) || continues(arena, Mapping{Start: cArena + 8192, Kind: Anonymous}) {
		t.Error("an arena that is parted is not one")
	}
	if !continues(Mapping{Start: 4096, End: 8192, Kind: Executable}, Mapping{Start: 8192, End: 12288, Kind: GoHeap}) {
		t.Error("the executable's zeros are not its own")
	}
}
