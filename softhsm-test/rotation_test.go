package softhsmtest_test

import (
	"crypto/ecdh"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/client"
	"github.com/finterra/finpay/appliance/tokens"
	"github.com/finterra/finpay/pci"
)

// vault is a system whose API key may do everything with tokens.
type vault struct {
	*system
	key       string
	client    *client.Client
	recipient *ecdh.PrivateKey
}

func newVault(t *testing.T, settings ...setting) *vault {
	s := newSystem(t, append(settings, setting{"recipient_delay: 24h", "recipient_delay: 0s"}, setting{"key_rate: 200", "key_rate: 100000"},
		setting{"key_burst: 400", "key_burst: 100000"})...)
	key := strings.TrimSpace(s.command("api-key", "create", "--scopes", "tokens,detokenize"))
	private, recipient := newRecipient(t)
	_, publicFile := writeKeys(t, private)
	s.command("api-key", "recipient", key, "--public-key", publicFile, "--quota", "5000")
	return &vault{s, key, s.tokens(func(cfg *client.Config) { cfg.Key = key }), recipient}
}

// issue tokenizes cards and returns their tokens by number.
func (v *vault) issue(t *testing.T, numbers ...string) map[string]pci.Token {
	t.Helper()
	issued := make(map[string]pci.Token)
	for i, r := range runBatch(t, v.client, numbers) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		issued[numbers[i]] = r.Token
	}
	return issued
}

// leadsTo wants tokens to be those of these cards.
func (v *vault) leadsTo(t *testing.T, issued map[string]pci.Token) {
	t.Helper()
	for number, token := range issued {
		if card, err := v.client.Detokenize(t.Context(), token, "test", v.recipient); err != nil || card.Number != number {
			t.Errorf("%s leads to another card, or to none: %v", token, err)
		}
	}
}

// status is how far the only retirement has come.
func (v *vault) status() tokens.RetirementStatus {
	v.t.Helper()
	list := decode[[]tokens.RetirementStatus](v.t, []byte(v.command("key", "status", "--json")))
	if len(list) != 1 {
		v.t.Fatalf("%+v", list)
	}
	return list[0]
}

// replacedBy follows all changes of the domain.
func (v *vault) replacedBy(t *testing.T) (by map[pci.Token]pci.Token, newest int64) {
	t.Helper()
	by = make(map[pci.Token]pci.Token)
	for after := int64(0); ; {
		page, err := v.client.Changes(t.Context(), after, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Changes) == 0 {
			return by, page.Newest
		}
		for _, c := range page.Changes {
			if _, twice := by[c.Old]; twice || c.Seq <= after {
				t.Fatalf("%+v", c)
			}
			by[c.Old], after = c.New, c.Seq
		}
	}
}

func TestAKeyIsRotatedAndRetiredWhileItServes(t *testing.T) {
	v := newVault(t)
	var numbers []string
	for n := range 40 {
		numbers = append(numbers, luhnNumber("411111", n))
	}
	old := v.issue(t, numbers...)
	ended := old[numbers[0]]
	if _, err := v.client.Deactivate(t.Context(), ended); err != nil {
		t.Fatal(err)
	}

	v.command("key", "rotate", "tokenize")
	if keys := v.states(); keys["tokenize v1"] != "retired" || keys["tokenize v2"] != "active" {
		t.Fatalf("after the rotation: %+v", keys)
	}
	newer := v.issue(t, "5555555555554444")
	for _, number := range numbers[1:] {
		if again := v.issue(t, number); again[number] != old[number] {
			t.Fatalf("a card's token has changed by the rotation: %s, %s", again[number], old[number])
		}
	}
	delete(old, numbers[0])
	v.leadsTo(t, old)

	v.command("key", "retire", "tokenize", "1", "--window", "0s")
	v.until("all tokens are replaced", func() bool { return v.status().Left == 0 })
	by, newest := v.replacedBy(t)
	if len(by) != len(numbers) || by[newer["5555555555554444"]] != "" {
		t.Fatalf("%d changes for %d tokens", len(by), len(numbers))
	}
	renewed := make(map[string]pci.Token)
	for number, token := range old {
		renewed[number] = by[token]
		if found, err := v.client.Token(t.Context(), token); err != nil || found.Status != api.TokenReplaced || found.ReplacedBy != by[token] {
			t.Errorf("%+v, %v", found, err)
		}
	}
	v.leadsTo(t, old) // both work until the domain has acknowledged
	v.leadsTo(t, renewed)
	for _, token := range []pci.Token{ended, by[ended]} {
		if _, err := v.client.Detokenize(t.Context(), token, "test", v.recipient); code(err) != "token_inactive" {
			t.Errorf("the successor of an inactive token: %v", err)
		}
	}
	if again := v.issue(t, numbers[1:]...); fmt.Sprint(again) != fmt.Sprint(renewed) {
		t.Errorf("cards have %v, want %v", again, renewed)
	}
	if got := v.status(); !got.EndedAt.IsZero() || len(got.WaitsFor) != 1 {
		t.Errorf("before the acknowledgement: %+v", got)
	}

	if _, err := v.client.AcknowledgeChanges(t.Context(), newest+1); code(err) != "invalid" {
		t.Errorf("a change that is not there was acknowledged: %v", err)
	}
	if _, err := v.client.AcknowledgeChanges(t.Context(), newest-1); err != nil || !v.status().EndedAt.IsZero() {
		t.Errorf("all but one: %v, %+v", err, v.status())
	}
	if got, err := v.client.AcknowledgeChanges(t.Context(), newest); err != nil || got.Acknowledged != newest {
		t.Errorf("%+v, %v", got, err)
	}
	v.until("the key is destroyed", func() bool { return !v.status().EndedAt.IsZero() })
	if state := v.states()["tokenize v1"]; state != "destroyed" {
		t.Errorf("the key is %s", state)
	}
	v.leadsTo(t, renewed)
	for _, token := range old {
		if _, err := v.client.Detokenize(t.Context(), token, "test", v.recipient); code(err) != "token_replaced" {
			t.Errorf("an old token: %v", err)
		}
		if _, err := v.client.Deactivate(t.Context(), token); code(err) != "token_replaced" {
			t.Errorf("an old token: %v", err)
		}
	}
	for kind, want := range map[string]int{"key.retirement_started": 1, "key.tokens_replaced": 1, "tokens.changes_acknowledged": 2, "key.retirement_counted": 1, "key.destroyed": 1} {
		if n := v.entriesOfType(kind); n != want {
			t.Errorf("%d entries %s, want %d", n, kind, want)
		}
	}
	v.serve.stop()
	v.command("keys") // books and HSM agree, without the appliance as well
	v.verifyLog()
	noCardDataIn(t, v.cfg.State())
}

// died waits until the server has come to its failpoint.
func (v *vault) died() {
	v.t.Helper()
	select {
	case <-v.serve.done:
	case <-time.After(20 * time.Second):
		v.t.Fatal("the server never came to this place")
	}
	v.client.Close()
}

func TestARetirementIsCarriedOnAfterAKill(t *testing.T) {
	v := newVault(t)
	old := make(map[string]pci.Token)
	for series := range 3 { // more than one commit replaces
		var numbers []string
		for n := range 400 {
			numbers = append(numbers, luhnNumber(fmt.Sprintf("41111%d", series), n*7919))
		}
		for number, token := range v.issue(t, numbers...) {
			old[number] = token
		}
	}
	v.command("key", "rotate", "tokenize")
	v.serve.stop()
	v.command("key", "retire", "tokenize", "1", "--window", "0s")
	for range 2 { // each gets one page further
		v.serve = v.start("serve", "FINPAY_FAILPOINT=after tokens were replaced")
		v.died()
	}
	if left := v.status().Left; left != len(old)-2*512 {
		t.Errorf("%d tokens are left", left)
	}
	v.serve = v.start("serve")
	v.awaitReady()
	v.until("all tokens are replaced", func() bool { return v.status().Left == 0 })
	by, newest := v.replacedBy(t)
	if len(by) != len(old) {
		t.Fatalf("%d changes for %d tokens", len(by), len(old))
	}
	for _, place := range []string{"before a retired key is destroyed", "after a retired key was destroyed"} {
		v.serve.stop()
		v.serve = v.start("serve", "FINPAY_FAILPOINT="+place)
		if place == "before a retired key is destroyed" {
			v.awaitReady()
			_, _ = v.client.AcknowledgeChanges(t.Context(), newest) // it may die before it answers
		}
		v.died()
	}
	v.serve = v.start("serve")
	v.awaitReady()
	if state := v.states()["tokenize v1"]; v.status().EndedAt.IsZero() || state != "destroyed" {
		t.Errorf("%+v, the key is %s", v.status(), state)
	}
	for number, token := range old {
		v.leadsTo(t, map[string]pci.Token{number: by[token]})
	}
	v.serve.stop()
	v.verifyLog()
	noCardDataIn(t, v.cfg.State())
}
