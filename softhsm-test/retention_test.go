package softhsmtest_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
)

// What was told of people is gone from the disk once a merchant has it deleted, or its time is over, and the log tells so.
func TestWhatWasToldOfPeopleIsDeleted(t *testing.T) {
	s := newSystem(t)
	told := func(who string) api.Payment {
		status, body := s.call("POST", "/v1/payments", `{"amount":1250,"currency":"EUR","reference":"o","return_url":"https://localhost/thanks","customer":{"name":"`+who+
			`","email":"`+strings.ToLower(who)+`@example.org","phone":"+60 123456789","billing":{"line1":"1 Jalan `+who+`","city":"Ipoh","postal_code":"30000","country":"MY"}}}`,
			"Idempotency-Key", fmt.Sprintf("%x", sha256.Sum256([]byte(who))))
		if status != http.StatusCreated {
			t.Fatalf("%d %s", status, body)
		}
		return decode[api.Payment](t, body)
	}
	onDisk := func(who string) bool {
		text, err := os.ReadFile(filepath.Join(s.cfg.State(), "finpay.db")) // the server has ended: all is in it
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(bytes.ToLower(text), []byte(strings.ToLower(who)))
	}
	asked, kept := told("Zulaikhamarked"), told("Yusofmarked")
	s.serve.stop()
	if !onDisk("Zulaikhamarked") || !onDisk("Yusofmarked") {
		t.Fatal("they are not where they are looked for")
	}

	s.serve = s.start("serve")
	s.awaitReady()
	for range 2 {
		if status, body := s.call("DELETE", "/v1/payments/"+asked.ID+"/customer", ""); status != http.StatusNoContent {
			t.Fatalf("%d %s", status, body)
		}
	}
	s.serve.stop()
	if onDisk("Zulaikhamarked") || !onDisk("Yusofmarked") {
		t.Errorf("deleted: %t, kept: %t", !onDisk("Zulaikhamarked"), onDisk("Yusofmarked"))
	}

	s.serve = s.start("serve", "FINPAY_AHEAD=9601h")
	s.awaitReady()
	s.until("the log tells of it", func() bool { return s.entriesOfType("retention.applied") == 1 })
	if again := told("Yusofmarked"); again.ID == kept.ID {
		t.Error("the idempotency key is still known")
	} else if status, body := s.call("DELETE", "/v1/payments/"+again.ID+"/customer", ""); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if got := s.payment(kept.ID); got.Reference != "o" {
		t.Errorf("%+v", got)
	}
	s.serve.stop()
	if onDisk("Yusofmarked") {
		t.Error("it is still there after its time")
	}
	if n := s.entriesOfType("customer.forgotten"); n != 2 {
		t.Errorf("%d entries of what a merchant had deleted", n)
	}
	s.command("ledger", "check")
	s.verifyLog()
}
