package softhsmtest_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/softhsm-test/scan"
)

// route is a way in which a card comes to the appliance.
type route struct {
	name string
	// sealed says that the card never reaches the appliance but sealed to the HSM: in the moment of its answer there is nothing of
	// it anywhere. What came open is gone in the next moment: when its connection is asked for more, or closed.
	sealed bool
	ride   func(*ride)
	left   int // copies of each card that may stay outside of the project's own memory; see copiesOfMisplaced
}

// ride is a route on its way, with cards that nothing else has.
type ride struct {
	*vault
	temporary string // directory of the appliance's temporary files
	cvv       string // of all its cards, and of no other ride's
	cards     []scan.Card
}

var nextMarked, nextCode atomic.Int64

// another is a ride on the same appliance.
func (r *ride) another() *ride {
	return &ride{vault: r.vault, temporary: r.temporary, cvv: fmt.Sprintf("%03d", 207+nextCode.Add(1)*37%700)}
}

// card returns a fresh number, which the directory server authenticates and the acquirer approves.
func (r *ride) card() string {
	n := int(nextMarked.Add(1))
	return r.known(luhnNumber(fmt.Sprintf("4%05d", 53_917+n*7_919%40_000), 271_828_183+n*314_159))
}

// known marks a card that others have as well: what it makes the counterparties do is in its number.
func (r *ride) known(number string) string {
	r.cards = append(r.cards, scan.Card{Number: number, CVV: r.cvv})
	return number
}

// copiesOfMisplaced bounds what may be left in memory of a card that was sent where none belongs: headers, paths and queries
// are strings of net/http's, and so is JSON that has no place for a card once it is decoded. They live until they are
// collected. Measured are 2 to 4, with another for the line of the request in a buffer.
const copiesOfMisplaced = 9

// scanMemory is what is found of the ride's cards in the serving process, which is stopped while it is read.
func (r *ride) scanMemory(t *testing.T) (scan.Memory, bool) {
	t.Helper()
	found, err := scan.New(r.cards...).Process(r.serve.cmd.Process.Pid)
	if errors.Is(err, scan.ErrNotRoot) {
		if scanRounds() > 0 {
			t.Fatal("make scan reads the memory of the serving process, which is not dumpable: run it as root")
		}
		t.Logf("NOT ROOT: THE MEMORY OF THE SERVING PROCESS IS NOT SEARCHED, FILES ALONE ARE: %v", err)
		return found, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return found, true
}

// checkMemory wants nothing of a card anywhere, but what its route may leave in memory that is not the project's own.
func (r *ride) checkMemory(t *testing.T, to route) {
	t.Helper()
	var found scan.Memory
	for again := range 20 {
		searched := false
		if found, searched = r.scanMemory(t); !searched {
			return
		}
		if to.sealed || len(found.Hits) <= to.left*len(r.cards) && len(found.Of(scan.Locked)) == 0 {
			break
		}
		time.Sleep(time.Duration(again) * 10 * time.Millisecond) //nolint:forbidigo // what is waited for shows in memory alone
	}
	byKind := map[scan.Kind]int{}
	for _, hit := range found.Hits {
		byKind[hit.Kind]++
	}
	if len(found.Hits) > to.left*len(r.cards) || len(found.Of(scan.Locked)) > 0 {
		t.Errorf("%d copies are left, and may be %d, none in locked memory:\n%s", len(found.Hits), to.left*len(r.cards), lines(found.Hits))
	}
	t.Logf("%d MiB searched, %d cards, left: %s", found.Bytes>>20, len(r.cards), counts(byKind))
}

func lines(hits []scan.Hit) string {
	var b strings.Builder
	for _, hit := range hits {
		fmt.Fprintln(&b, hit)
	}
	return b.String()
}

func counts(by map[scan.Kind]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d in %s", by[kind], kind))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// checkDisk wants nothing of the cards in any file: database with its freed pages, WAL, logs, control files, the hsm token,
// the metrics page as a scraper would keep it, and the directory for temporary files.
func (r *ride) checkDisk(t *testing.T) {
	t.Helper()
	s := scan.New(r.cards...)
	hits, files, err := s.Files(r.cfg.State(), r.temporary)
	if err != nil || files < 20 {
		t.Fatalf("%d files searched: %v", files, err)
	}
	if response, err := http.Get("http://" + r.cfg.Monitor + "/metrics"); err == nil {
		page, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		hits = append(hits, s.Text(page, "/metrics")...)
	}
	for _, hit := range hits {
		t.Error(hit)
	}
}

// newRide is a ride on an appliance of its own, whose temporary files have a directory of their own.
func newRide(t *testing.T, settings ...setting) *ride {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return (&ride{vault: newVault(t, append(settings, setting{"address_rate: 20", "address_rate: 100000"}, setting{"address_burst: 60", "address_burst: 100000"},
		setting{"level: info", "level: debug"})...), temporary: dir}).another()
}

// TestScan drives marked cards through every route of the real program, and looks for them after each: in its memory, in
// every file.
func TestScan(t *testing.T) {
	all := newRide(t)
	for _, to := range routes {
		t.Run(to.name, func(t *testing.T) {
			all.t = t
			r := all.another()
			to.ride(r)
			r.checkMemory(t, to) // at once
			r.checkDisk(t)
			all.cards = append(all.cards, r.cards...)
		})
	}
	all.t = t
	if found, searched := all.scanMemory(t); searched {
		if locked := found.Of(scan.Locked); len(locked) > 0 {
			t.Errorf("in locked memory, at rest:\n%s", lines(locked))
		}
		t.Logf("at the end %d MiB: %v; left of %d cards: %d", found.Bytes>>20, found.By, len(all.cards), len(found.Hits))
	}
	all.serve.stop()
	all.checkDisk(t)
	all.verifyLog()
}

// scanRounds is how many rounds of load `make scan` wants; 0 in `make test`.
func scanRounds() (n int) {
	_, _ = fmt.Sscan(os.Getenv("SCAN_ROUNDS"), &n)
	return n
}

// logHas reports whether the appliance's log has a text.
func (s *system) logHas(text string) bool {
	log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
	return err == nil && strings.Contains(string(log), text)
}
