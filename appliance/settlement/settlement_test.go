package settlement

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bank is an acquirer that compares debits and credits, and begins anew when they agree.
type bank struct {
	books    map[key]pci.Totals
	answered map[string]answer // by terminal and STAN
	asked    []pci.ReconciliationRequest
	lose     int // answers that get lost
	missing  int // requests that do
}

type answer struct {
	agreed bool
	theirs pci.Totals
}

func (b *bank) Reconcile(_ context.Context, r pci.ReconciliationRequest) (bool, pci.Totals, error) {
	b.asked = append(b.asked, r)
	if b.missing > 0 {
		b.missing--
		return false, pci.Totals{}, errors.New("the line is down")
	}
	again := r.Merchant.TerminalID + r.Trace.STAN
	a, ok := b.answered[again]
	if !ok {
		k := key{r.Merchant.TerminalID, r.Currency}
		a = answer{b.books[k] == r.Totals, b.books[k]}
		if a.agreed {
			delete(b.books, k)
		}
		b.answered[again] = a
	}
	if b.lose > 0 {
		b.lose--
		return false, pci.Totals{}, errors.New("no answer")
	}
	return a.agreed, a.theirs, nil
}

type world struct {
	t       rapid.TB
	store   *store.Store
	ledger  *ledger.Ledger
	bank    *bank
	service *Service
	busy    error
	resting int
	now     time.Time
	stan    int
}

func newWorld(t rapid.TB, dir string) *world {
	w := &world{t: t, bank: &bank{books: make(map[key]pci.Totals), answered: make(map[string]answer)}, now: time.Date(2026, 11, 26, 2, 59, 0, 0, time.UTC)}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		w.store, err = store.Open(context.Background(), dir)
	}
	if err == nil {
		w.ledger, err = ledger.Open(context.Background(), w.store, ledger.Config{Origin: "finpay.test/log", Node: "node", Signer: private, Now: w.clock})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, terminal := range []string{"TERM0001", "TERM0002"} {
		_, err := w.ledger.Commit(context.Background(), func(tx *ledger.Tx) error {
			id := "mer_" + terminal
			tx.Record(ledger.Entry{Type: "merchant.created", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: id})
			if err := tx.PutMerchant(store.Merchant{ID: id, Domain: "d", Profile: pci.Merchant{ID: id, TerminalID: terminal}, CreatedAt: w.now}); err != nil {
				return err
			}
			tx.Record(ledger.Entry{Type: "merchant.created", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: id})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.restart()
	return w
}

func (w *world) clock() time.Time { return w.now }

func (w *world) end() {
	w.ledger.Close()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart is a new process over the same rows.
func (w *world) restart() {
	w.service = New(Config{Store: w.store, Ledger: w.ledger, Now: w.clock, Connectors: []Connector{{Name: "acquirer", At: 3 * time.Hour, Reconciler: w.bank}},
		Quiet: func(context.Context, string) (func(), error) {
			if w.busy != nil {
				return nil, w.busy
			}
			w.resting++
			return func() { w.resting-- }, nil
		},
		Trace: func(*ledger.Tx, store.Merchant) (pci.Trace, error) {
			w.stan++
			return pci.Trace{STAN: fmt.Sprintf("%06d", w.stan), TransmittedAt: w.now}, nil
		}})
}

// enter puts an entry of a payment into the log, and into the bank's books where it moves money.
func (w *world) enter(connector, terminal string, currency pci.Currency, kind string, minor int64) {
	w.t.Helper()
	data := map[string]any{"connector": connector, "merchant": "mer_" + terminal, "currency": string(currency)}
	k := key{terminal, currency}
	books := w.bank.books[k]
	switch kind {
	case "payment.captured":
		data["captured"] = minor
		tally(&books.Debits, minor)
	case "payment.refunded", "payment.partially_refunded":
		data["captured"], data["refund_amount"] = 99999, minor
		tally(&books.Credits, minor)
	case "payment.authorized":
		books.Authorizations++
	}
	if connector == "acquirer" {
		w.bank.books[k] = books
	}
	if _, err := w.ledger.Commit(context.Background(), func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "pay_1", Data: data})
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) settle() []store.Settlement {
	w.t.Helper()
	ended, err := w.service.Settle(context.Background(), "acquirer")
	if err != nil {
		w.t.Fatalf("settle: %v", err)
	}
	return ended
}

func in(t *testing.T) *world {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.end)
	return w
}

func TestBooksThatAgree(t *testing.T) {
	w := in(t)
	if ended := w.settle(); len(ended) != 0 {
		t.Errorf("nothing moved: %+v", ended)
	}
	w.enter("acquirer", "TERM0001", "EUR", "payment.authorized", 0)
	w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 1250)
	w.enter("acquirer", "TERM0001", "EUR", "payment.partially_refunded", 250)
	w.enter("acquirer", "TERM0001", "MYR", "payment.captured", 7)
	w.enter("acquirer", "TERM0002", "EUR", "payment.captured", 9)
	w.enter("stripe", "TERM0001", "EUR", "payment.captured", 5000)
	w.enter("acquirer", "TERM0001", "EUR", "payment.declined", 0)
	ended := w.settle()
	if len(ended) != 3 || w.resting != 0 {
		t.Fatalf("%d settlements, %d at rest: %+v", len(ended), w.resting, ended)
	}
	for _, p := range ended {
		if p.Status != store.SettlementBalanced || p.Ours != p.Theirs {
			t.Errorf("%+v", p)
		}
	}
	if p := ended[0]; p.Terminal != "TERM0001" || p.Currency != "EUR" || p.Ours.Net() != 1000 || p.Ours.Authorizations != 1 {
		t.Errorf("the first: %+v", p)
	}
	if again := w.settle(); len(again) != 0 {
		t.Errorf("settled twice: %+v", again)
	}
	w.restart()
	if again := w.settle(); len(again) != 0 {
		t.Errorf("settled again by the next process: %+v", again)
	}
	w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 1)
	if next := w.settle(); len(next) != 1 || next[0].Status != store.SettlementBalanced || next[0].From != ended[0].Through || next[0].Ours.Debits != (pci.Tally{Count: 1, Minor: 1}) {
		t.Errorf("the next day: %+v", next)
	}
	kinds := w.kinds()
	if kinds["settlement.requested"] != 4 || kinds["settlement.balanced"] != 4 {
		t.Errorf("entered %v", kinds)
	}
}

// kinds counts the log's entries.
func (w *world) kinds() map[string]int {
	w.t.Helper()
	entries, err := w.store.Read(context.Background()).LedgerEntries(0, 10_000)
	if err != nil {
		w.t.Fatal(err)
	}
	n := make(map[string]int)
	for _, e := range entries {
		var m movement
		if err := json.Unmarshal(e.Entry, &m); err != nil {
			w.t.Fatal(err)
		}
		n[m.Type]++
	}
	return n
}

func TestBooksThatDiffer(t *testing.T) {
	w := in(t)
	w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 1250)
	k := key{"TERM0001", "EUR"}
	books := w.bank.books[k]
	books.Debits.Minor--
	w.bank.books[k] = books
	ended := w.settle()
	if len(ended) != 1 || ended[0].Status != store.SettlementOutOfBalance || ended[0].Theirs.Debits.Minor != 1249 || ended[0].Ours.Debits.Minor != 1250 {
		t.Fatalf("%+v", ended)
	}
	books.Debits.Minor++ // the acquirer has found its mistake
	w.bank.books[k] = books
	w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 50)
	if ended := w.settle(); len(ended) != 1 || ended[0].Status != store.SettlementBalanced || ended[0].Ours.Debits != (pci.Tally{Count: 2, Minor: 1300}) {
		t.Errorf("totals go on from the last agreement: %+v", ended)
	}
}

func TestAnAnswerThatIsLostIsAskedForAgain(t *testing.T) {
	for name, lose := range map[string]func(*bank){
		"the answer":  func(b *bank) { b.lose = 1 },
		"the request": func(b *bank) { b.missing = 1 },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, another process %v", name, restart), func(t *testing.T) {
				w := in(t)
				w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 1250)
				lose(w.bank)
				if _, err := w.service.Settle(t.Context(), "acquirer"); err == nil || w.resting != 0 {
					t.Fatalf("without an answer: %v, at rest %d", err, w.resting)
				}
				w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 50) // payments go on
				if restart {
					w.restart()
				}
				var total pci.Totals
				for range 3 {
					for _, p := range w.settle() {
						if p.Status == store.SettlementBalanced {
							total.Debits.Count, total.Debits.Minor = total.Debits.Count+p.Ours.Debits.Count, total.Debits.Minor+p.Ours.Debits.Minor
						}
					}
				}
				if total.Debits != (pci.Tally{Count: 2, Minor: 1300}) || len(w.bank.books) != 0 {
					t.Errorf("agreed on %+v, the bank has %+v left", total, w.bank.books)
				}
				if first, second := w.bank.asked[0], w.bank.asked[1]; first.Trace != second.Trace || first.Totals != second.Totals {
					t.Errorf("asked %+v, then %+v", first, second)
				}
			})
		}
	}
}

func TestAConnectorThatIsBusyIsLeftAlone(t *testing.T) {
	w := in(t)
	w.enter("acquirer", "TERM0001", "EUR", "payment.captured", 1250)
	w.busy = errors.New("busy")
	if _, err := w.service.Settle(t.Context(), "acquirer"); !errors.Is(err, w.busy) || len(w.bank.asked) != 0 {
		t.Errorf("%v, asked %d times", err, len(w.bank.asked))
	}
	if _, err := w.service.Settle(t.Context(), "stripe"); !errors.Is(err, ErrUnknownConnector) {
		t.Error(err)
	}
}

func TestBooksAreComparedAtTheirTime(t *testing.T) {
	w := in(t)
	c := w.service.cfg.Connectors[0]
	for now, want := range map[string]string{
		"2026-11-26T02:59:59Z": "2026-11-26T03:00:00Z", "2026-11-26T03:00:00Z": "2026-11-27T03:00:00Z", "2026-11-26T23:00:00+08:00": "2026-11-27T03:00:00Z",
	} {
		w.now, _ = time.Parse(time.RFC3339, now)
		if next, ok := w.service.next(c); !ok || next.Format(time.RFC3339) != want {
			t.Errorf("at %s next at %s", now, next)
		}
	}
	c.At = -1
	if _, ok := w.service.next(c); ok {
		t.Error("one that is compared on demand alone has a time")
	}
}

func TestWhateverHappensEachCentIsAgreedOnOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, tempDir(t))
		defer w.end()
		var moved, agreed int64
		terminal := rapid.SampledFrom([]string{"TERM0001", "TERM0002"})
		currency := rapid.SampledFrom([]pci.Currency{"EUR", "MYR"})
		t.Repeat(map[string]func(*rapid.T){
			"sale": func(t *rapid.T) {
				minor := rapid.Int64Range(1, 9).Draw(t, "minor")
				w.enter("acquirer", terminal.Draw(t, "terminal"), currency.Draw(t, "currency"), "payment.captured", minor)
				moved += minor
			},
			"other connector": func(t *rapid.T) { w.enter("other", terminal.Draw(t, "terminal"), "EUR", "payment.captured", 3) },
			"lose":            func(t *rapid.T) { w.bank.lose = rapid.IntRange(0, 2).Draw(t, "answers") },
			"miss":            func(t *rapid.T) { w.bank.missing = rapid.IntRange(0, 2).Draw(t, "requests") },
			"restart":         func(*rapid.T) { w.restart() },
			"settle":          func(*rapid.T) { agreed += w.sum() },
		})
		w.bank.lose, w.bank.missing = 0, 0
		for range 3 {
			agreed += w.sum()
		}
		if agreed != moved || len(w.bank.books) != 0 {
			t.Fatalf("moved %d, agreed on %d; the bank has %+v", moved, agreed, w.bank.books)
		}
	})
}

// sum settles, whatever comes, and adds up what was agreed on.
func (w *world) sum() (minor int64) {
	ended, _ := w.service.Settle(context.Background(), "acquirer")
	for _, p := range ended {
		if p.Status == store.SettlementBalanced {
			minor += p.Ours.Net()
		}
	}
	return minor
}

func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "settlement-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
