package softhsmtest_test

import (
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
)

func TestBooksAreComparedWithTheAcquirers(t *testing.T) {
	s := newSystem(t)
	for _, card := range []string{approvedCard, "4539050505050507", "4539686868686864", "4242424242424242", "4012888888881881"} {
		s.settled(s.paidWith("automatic", card)) // some are declined, never answered, or answered twice
	}
	s.modify(s.paidWith("automatic", approvedCard), "refunds", `{"amount":250}`)
	s.modify(s.paidWith("manual", approvedCard), "capture", `{"amount":1000}`)
	s.paidWith("manual", approvedCard) // authorized, and no money moved
	told := s.command("settlement", "run", "acquirer")
	if !strings.Contains(told, "balanced") || strings.Contains(told, "out_of_balance") || !strings.Contains(told, "45.00") {
		t.Errorf("told:\n%s", told)
	}
	if again := s.command("settlement", "run", "acquirer"); !strings.Contains(again, "Nothing was cleared") {
		t.Errorf("told again:\n%s", again)
	}
	s.paidWith("automatic", approvedCard)
	s.command("settlement", "run", "acquirer")
	var list []struct {
		Status string
		Ours   struct{ Net int64 }
		Theirs struct{ Net int64 }
	}
	if err := json.Unmarshal([]byte(s.command("settlement", "list", "--json")), &list); err != nil || len(list) != 2 {
		t.Fatalf("%v: %+v", err, list)
	}
	if list[0].Ours.Net != 1250 || list[1].Ours.Net != 4500 || list[1].Theirs.Net != 4500 || list[0].Status != "balanced" {
		t.Errorf("listed %+v", list)
	}
	if refused := s.refused("settlement", "run", "stripe"); !strings.Contains(refused, `"stripe"`) {
		t.Errorf("an unknown connector: %s", refused)
	}
	s.agree()
}

func TestTheAcquirerHoldsTheRecordOfEachSale(t *testing.T) {
	s := newSystem(t)
	id := s.paidWith("automatic", approvedCard)
	book := s.books().Bookings[0]
	raw, err := base64.StdEncoding.DecodeString(book.Record)
	if err != nil || len(raw) == 0 || len(raw) >= 200 {
		t.Fatalf("record %q, %v", book.Record, err)
	}
	record, err := logproof.ParseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	vkey := filepath.Join(s.cfg.State(), "ledger.vkey")
	if told := s.command("ledger", "record", book.Record, "--key", vkey); !strings.Contains(told, "signed") {
		t.Errorf("told %s", told)
	}
	_, body := s.call("GET", "/v1/payments/"+id+"/receipt", "")
	var entry api.ReceiptEntry
	for _, e := range decode[api.Receipt](t, body).Entries {
		if strings.Contains(e.Entry, `"type":"payment.authorizing"`) {
			entry = e
		}
	}
	if entry.Index != record.Index || !record.Is([]byte(entry.Entry)) {
		t.Errorf("the record is of entry %d, the sale was announced by %d", record.Index, entry.Index)
	}
	raw[40] ^= 1
	forged := exec.Command(finpay, "ledger", "record", base64.StdEncoding.EncodeToString(append(raw[:60:60], make([]byte, 90)...)), "--key", vkey)
	if out, err := forged.CombinedOutput(); err == nil {
		t.Errorf("a forged record holds:\n%s", out)
	}
}
