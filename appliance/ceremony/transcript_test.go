package ceremony

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// held is a log with one ceremony in it, between entries of others.
func held(t *testing.T) (Transcript, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/node/2026", Node: "node", Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	plan, err := ParsePlan([]byte(rotation))
	if err != nil {
		t.Fatal(err)
	}
	var indexes []int64
	record := func(kind, resource string, data map[string]any) {
		receipt, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
			tx.Record(ledger.Entry{Type: kind, Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: resource, Data: data})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if data["ceremony"] != nil {
			indexes = append(indexes, receipt.Indexes...)
		}
	}
	about, digest := Resource(plan.Digest()), plan.Digest()
	record("payment.created", "pay_1", map[string]any{})
	record(Started, about, map[string]any{"ceremony": digest, "custodians": []map[string]any{{"name": "key-custodian-a", "consented_at": "2026-01-02T03:04:05Z"}}})
	record("key.created", "hsm:kek v2", map[string]any{"ceremony": digest, "key": map[string]any{"kind": "aes-256", "check_value": "a1b2c3"}})
	record(StepDone, about, map[string]any{"ceremony": digest, "step": 1, "action": "rotate kek", "result": "kek v2 generated"})
	record("payment.created", "pay_2", map[string]any{})
	record(StepDone, about, map[string]any{"ceremony": digest, "step": 2, "action": "destroy origin v1", "result": "origin v1 destroyed"})
	record(Finished, about, map[string]any{"ceremony": digest, "checks": []any{}, "entries": slices.Clone(indexes)})
	transcript := Transcript{Log: l.Origin(), Plan: string(plan.Text())}
	for _, resource := range []string{about, "hsm:kek v2"} {
		entries, err := l.EntriesOf(t.Context(), resource)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			transcript.Entries = append(transcript.Entries, TranscriptEntry{e.Index, string(e.Entry), string(e.Proof)})
		}
	}
	slices.SortFunc(transcript.Entries, func(a, b TranscriptEntry) int { return int(a.Index - b.Index) })
	return transcript, l.VerifierKey()
}

func encode(t *testing.T, transcript Transcript) []byte {
	t.Helper()
	text, err := transcript.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestATranscriptTellsWhatTheLogHas(t *testing.T) {
	transcript, vkey := held(t)
	account, err := VerifyTranscript(encode(t, transcript), vkey)
	if err != nil {
		t.Fatal(err)
	}
	told := strings.Join(account.Lines(), "\n")
	for _, want := range []string{"Yearly rotation", account.Plan.Digest(), "key-custodian-a", "kek v2", "a1b2c3", "origin v1 destroyed"} {
		if !strings.Contains(told, want) {
			t.Errorf("nothing about %q in\n%s", want, told)
		}
	}
	_, other := held(t)
	if _, err := VerifyTranscript(encode(t, transcript), other); err == nil {
		t.Error("verifies under another log's key")
	}
}

func TestEveryAlteredByteOfATranscriptIsRefused(t *testing.T) {
	transcript, vkey := held(t)
	text := encode(t, transcript)
	for i := range text {
		altered := bytes.Clone(text)
		altered[i] ^= 1
		if _, err := VerifyTranscript(altered, vkey); err == nil {
			t.Errorf("byte %d (%q): accepted", i, text[max(0, i-30):i+1])
		}
	}
	if _, err := VerifyTranscript(append(text, '\n'), vkey); err == nil {
		t.Error("a line more: accepted")
	}
}

func TestATranscriptIsWhole(t *testing.T) {
	for i := range 5 {
		transcript, vkey := held(t)
		transcript.Entries = slices.Delete(transcript.Entries, i, i+1)
		if _, err := VerifyTranscript(encode(t, transcript), vkey); err == nil {
			t.Errorf("without entry %d: accepted", i)
		}
	}
	transcript, vkey := held(t)
	slices.Reverse(transcript.Entries)
	if _, err := VerifyTranscript(encode(t, transcript), vkey); err == nil {
		t.Error("in another order: accepted")
	}
	transcript, vkey = held(t)
	transcript.Plan = strings.Replace(transcript.Plan, "rotate: {role: kek}", "rotate: {role: tls}", 1)
	if _, err := VerifyTranscript(encode(t, transcript), vkey); err == nil {
		t.Error("with another plan: accepted")
	}
}
