package scan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Kind says what a mapping is used for.
type Kind string

// The kinds of mappings.
const (
	Locked     Kind = "locked"    // mlock'ed: where cards may be while they are used
	GoHeap     Kind = "Go heap"   // and the goroutines' stacks, which are in it
	CHeap      Kind = "C heap"    // of malloc
	Stack      Kind = "stack"     // of the main thread
	Executable Kind = "program"   // writable data of the executable
	File       Kind = "file"      // a library, or another mapped file
	Anonymous  Kind = "anonymous" // stacks of other threads, the runtime's own, what libraries map
	Unreadable Kind = "not readable"
)

// Mapping is a line of /proc/PID/maps (proc_pid_maps(5)).
type Mapping struct {
	Start, End uint64
	Mode       string
	Path       string
	Kind       Kind
}

// Memory is what a scan of a process found.
type Memory struct {
	Hits  []Hit
	Bytes int64          // read
	By    map[Kind]int64 // bytes by kind
}

// Of returns the hits of some kinds.
func (m Memory) Of(kinds ...Kind) (hits []Hit) {
	for _, h := range m.Hits {
		for _, kind := range kinds {
			if h.Kind == kind {
				hits = append(hits, h)
			}
		}
	}
	return hits
}

// ErrNotRoot means that the memory of a process that is not dumpable is read by root alone.
var ErrNotRoot = errors.New("scan: only root reads the memory of a process that is not dumpable")

// Process stops a process, reads all of its memory, and lets it go on. Everything that is mapped readable is read, but for
// what is of the executable's file and not writable: its constants, among which are published test cards, are the same
// on disk for everybody and hold nothing that came in. Pages that were never written are passed over.
func (s *Scanner) Process(pid int) (found Memory, err error) {
	if err := Freeze(pid); err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)) }()
	return s.frozen(pid)
}

// Freeze stops a process and returns when it stands still. SIGCONT lets it go on.
func Freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("scan: stop process %d: %w", pid, err)
	}
	for { // the kernel stops each thread when it is scheduled next
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("scan: process %d has ended", pid)
		}
		running := false
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if err != nil {
				continue // a thread that has ended since
			}
			state := stat[bytes.LastIndexByte(stat, ')')+2]
			running = running || state != 'T' && state != 'Z' && state != 't' && state != 'X'
		}
		if !running {
			return nil
		}
	}
}

func (s *Scanner) frozen(pid int) (Memory, error) {
	found := Memory{By: make(map[Kind]int64)}
	mappings, err := mappingsOf(pid)
	if err != nil {
		return found, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return found, fmt.Errorf("%w: %w", ErrNotRoot, err)
	}
	defer func() { _ = memory.Close() }()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return found, fmt.Errorf("%w: %w", ErrNotRoot, err)
	}
	defer func() { _ = pages.Close() }()
	for _, m := range mappings {
		if m.Kind == Unreadable {
			continue
		}
		runs, err := written(pages, m)
		if err != nil {
			return found, err
		}
		for _, run := range runs {
			n, err := s.region(memory, run, chunk, &found)
			if err != nil {
				return found, fmt.Errorf("scan: %s at %#x: %w", m.Path, run.Start, err)
			}
			found.Bytes += n
			found.By[m.Kind] += n
		}
	}
	return found, nil
}

// chunk is how much is read at once.
const chunk = 4 << 20

// region scans a run of pages in pieces that overlap by more than the longest form.
func (s *Scanner) region(memory io.ReaderAt, m Mapping, piece uint64, found *Memory) (n int64, err error) {
	overlap := uint64(s.longest + 2*margin)
	buf := make([]byte, min(m.End-m.Start, piece+2*overlap))
	for at := m.Start; at < m.End; at += piece {
		from := max(m.Start, at-min(at, overlap))
		text := buf[:min(m.End, at+piece+overlap)-from]
		if _, err := memory.ReadAt(text, int64(from)); err != nil {
			return n, err
		}
		mine := min(m.End, at+piece) - at
		n += int64(mine)
		like := Hit{Place: m.Path, Kind: m.Kind, Offset: int64(from)}
		found.Hits = append(found.Hits, s.text(text, int(at-from), int(at-from+mine), like)...)
	}
	return n, nil
}

// written returns the runs of pages of a mapping that are in memory or in swap (the kernel's Documentation/admin-guide/mm/
// pagemap.rst): what was never touched is zero.
func written(pages io.ReaderAt, m Mapping) (runs []Mapping, err error) {
	page := uint64(os.Getpagesize())
	const present, swapped = 1 << 63, 1 << 62
	entries := make([]byte, 8*(m.End-m.Start)/page)
	if _, err := pages.ReadAt(entries, int64(8*m.Start/page)); err != nil {
		return nil, fmt.Errorf("scan: pagemap of %s: %w", m.Path, err)
	}
	for i := uint64(0); 8*i < uint64(len(entries)); i++ {
		if binary.NativeEndian.Uint64(entries[8*i:])&(present|swapped) == 0 {
			continue
		}
		start := m.Start + i*page
		if last := len(runs) - 1; last >= 0 && runs[last].End == start {
			runs[last].End += page
			continue
		}
		run := m
		run.Start, run.End = start, start+page
		runs = append(runs, run)
	}
	return runs, nil
}

// mappingsOf reads /proc/PID/smaps, which says of each mapping whether it is locked, too.
func mappingsOf(pid int) (mappings []Mapping, err error) {
	executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRoot, err)
	}
	smaps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRoot, err)
	}
	defer func() { _ = smaps.Close() }()
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		last := len(mappings) - 1
		if m, ok := parseMapping(line, executable); ok {
			if last >= 0 && continues(mappings[last], m) {
				m.Kind = mappings[last].Kind
			}
			mappings = append(mappings, m)
			continue
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && last >= 0 && isCardMemory(flags) {
			mappings[last].Kind = Locked
		}
	}
	return mappings, lines.Err()
}

// continues reports whether a mapping is the rest of the one before it: of the executable's data, what begins as zero; of
// one of glibc's arenas, which a library parts that locks pages of it, as SoftHSM2 does.
func continues(before, m Mapping) bool {
	if m.Start != before.End || m.Path != "" || m.Kind == Unreadable {
		return false
	}
	return before.Kind == Executable || before.Kind == CHeap && m.Kind == Anonymous && m.Start/cArena == before.Start/cArena
}

// isCardMemory knows the memory of pci/internal/pan by how it is protected: locked, not dumped, wiped in a forked child.
func isCardMemory(flags string) bool {
	set := strings.Fields(flags)
	return slices.Contains(set, "lo") && slices.Contains(set, "dd") && slices.Contains(set, "wf")
}

// parseMapping reads the first line of a mapping, as in "c000000000-c000400000 rw-p 00000000 00:00 0   [anon: Go: heap]".
func parseMapping(line, executable string) (m Mapping, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 || len(fields[1]) != 4 {
		return m, false
	}
	start, end, found := strings.Cut(fields[0], "-")
	var errs [2]error
	m.Start, errs[0] = strconv.ParseUint(start, 16, 64)
	m.End, errs[1] = strconv.ParseUint(end, 16, 64)
	if !found || errors.Join(errs[:]...) != nil {
		return m, false
	}
	m.Mode, m.Path = fields[1], strings.Join(fields[5:], " ")
	m.Kind = kindOf(m, executable)
	return m, true
}

// On 64-bit machines Go's runtime chooses a heap below goHeapEnd (runtime/malloc.go, mallocinit), far from where the kernel
// puts mappings that name no address. glibc's malloc keeps the arenas of other threads than the first at multiples of
// cArena (malloc/arena.c, HEAP_MAX_SIZE).
const (
	goHeapEnd = 1 << 46
	cArena    = 64 << 20
)

func kindOf(m Mapping, executable string) Kind {
	switch {
	case m.Mode[0] != 'r', m.Path == "[vvar]", m.Path == "[vsyscall]", m.Path == "[vvar_vclock]":
		return Unreadable
	case m.Path == executable && m.Mode[1] != 'w':
		return Unreadable // see Scanner.Process
	case m.Path == executable:
		return Executable
	case m.Path == "[heap]":
		return CHeap
	case strings.HasPrefix(m.Path, "[stack"):
		return Stack
	case strings.HasPrefix(m.Path, "/") || strings.HasPrefix(m.Path, "[v"):
		return File
	case m.End <= goHeapEnd:
		return GoHeap
	case m.Start%cArena == 0 && m.Mode[1] == 'w':
		return CHeap
	default:
		return Anonymous
	}
}
