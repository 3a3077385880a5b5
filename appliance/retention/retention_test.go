package retention

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns an empty log.
func open(t *testing.T) (*store.Store, *ledger.Ledger) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/log", Node: "node", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, l
}

// answered puts n first answers, given now, into the database.
func answered(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	_, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
		for i := range n {
			if err := tx.PutIdempotent(store.Idempotent{MerchantID: "mer_1", Key: fmt.Sprint(i), RequestMAC: []byte{1}, CreatedAt: time.Now()}); err != nil {
				return err
			}
		}
		tx.Record(ledger.Entry{Type: "test", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: "test"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// told is the data of the entries about what was deleted.
func told(t *testing.T, s *store.Store) (list []map[string]int) {
	t.Helper()
	entries, err := s.Read(t.Context()).LedgerEntriesOf("retention")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var entry struct {
			Type string         `json:"type"`
			Data map[string]int `json:"data"`
		}
		if err := json.Unmarshal(e.Entry, &entry); err != nil || entry.Type != "retention.applied" {
			t.Fatalf("%s, %v", e.Entry, err)
		}
		list = append(list, entry.Data)
	}
	return list
}

func TestAllThatIsOldGoesAndIsCountedInTheLog(t *testing.T) {
	s, l := open(t)
	answered(t, l, 2*batch+1)
	ahead := 23 * time.Hour
	service := New(Config{Ledger: l, IdempotencyKeys: 24 * time.Hour, Now: func() time.Time { return time.Now().Add(ahead) }, Log: slog.New(slog.DiscardHandler)})
	if err := service.Sweep(t.Context()); err != nil || told(t, s) != nil {
		t.Errorf("before its time: %v, %v", err, told(t, s))
	}
	ahead = 25 * time.Hour
	for range 2 { // the second finds nothing, and says nothing
		if err := service.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, data := range told(t, s) {
		n += data["idempotency_keys"]
		if data["customers"] != 0 || data["webhook_deliveries"] != 0 {
			t.Errorf("%v", data)
		}
	}
	if n != 2*batch+1 || len(told(t, s)) != 3 {
		t.Errorf("%v", told(t, s))
	}
	if _, err := s.Read(t.Context()).Idempotent("mer_1", "0"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestWhatIsKeptForEverStays(t *testing.T) {
	s, l := open(t)
	answered(t, l, 1)
	service := New(Config{Ledger: l, Now: func() time.Time { return time.Now().AddDate(100, 0, 0) }, Log: slog.New(slog.DiscardHandler)})
	if err := service.Sweep(t.Context()); err != nil || told(t, s) != nil {
		t.Errorf("%v, %v", err, told(t, s))
	}
}

func TestItLooksAtTheStartAndThenEachPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := open(t)
		service := New(Config{Ledger: l, IdempotencyKeys: 24 * time.Hour, Log: slog.New(slog.DiscardHandler)})
		answered(t, l, 1)
		ctx, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { service.Run(ctx) })
		<-time.After(24*time.Hour - time.Minute)
		if told(t, s) != nil {
			t.Errorf("before its time: %v", told(t, s))
		}
		<-time.After(Period + 2*time.Minute)
		end()
		running.Wait()
		if len(told(t, s)) != 1 {
			t.Errorf("%v", told(t, s))
		}
	})
}
