package ceremony

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/ledger"
)

// Types of the entries about a ceremony as a whole. Those about keys (key.created, key.retired, …) name it in their data.
const (
	Started  = "ceremony.started"
	Resumed  = "ceremony.resumed"
	StepDone = "ceremony.step"
	Finished = "ceremony.finished"
)

// Resource is what entries about a ceremony are about.
func Resource(digest string) string { return "ceremony:" + digest }

// Transcript is the plan and every entry that its ceremony has left in the signed log, each with its proof. Nothing in it
// stands on its author's word: the plan is the one whose digest was signed, and the rest is signed entries.
type Transcript struct {
	Format  string            `json:"format"`  // "finpay ceremony transcript"
	Version int               `json:"version"` // 1
	Log     string            `json:"log"`     // origin of the signed log
	Plan    string            `json:"plan"`
	Entries []TranscriptEntry `json:"entries"`
}

// TranscriptEntry is an entry of the log with its proof.
type TranscriptEntry struct {
	Index int64  `json:"index"`
	Entry string `json:"entry"` // canonical JSON
	Proof string `json:"proof"` // C2SP tlog-proof, with the signed checkpoint
}

const (
	transcriptFormat  = "finpay ceremony transcript"
	transcriptVersion = 1
)

// Encode returns the file's bytes. There is one way to write a transcript.
func (t Transcript) Encode() ([]byte, error) {
	t.Format, t.Version = transcriptFormat, transcriptVersion
	text, err := json.MarshalIndent(t, "", "  ")
	return append(text, '\n'), err
}

// WriteTranscript writes a transcript. A file that is there is never overwritten.
func WriteTranscript(path string, t Transcript) error {
	text, err := t.Encode()
	if err == nil {
		err = writeNew(path, text)
	}
	if err != nil {
		return fmt.Errorf("transcript: %w", err)
	}
	return nil
}

// Account is what a verified transcript tells.
type Account struct {
	Plan    Plan
	Log     string
	Entries []ledger.Entry
}

// VerifyTranscriptFile is [VerifyTranscript] of a file.
func VerifyTranscriptFile(path, vkey string) (Account, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Account{}, fmt.Errorf("transcript: %w", err)
	}
	a, err := VerifyTranscript(text, vkey)
	if err != nil {
		return Account{}, fmt.Errorf("transcript %s: %w", path, err)
	}
	return a, nil
}

// VerifyTranscript checks a transcript under the log's public key, which the caller got elsewhere: every entry's proof and
// signature, that they tell of this plan, and that all of them are there from start to finish.
func VerifyTranscript(text []byte, vkey string) (Account, error) {
	var t Transcript
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&t); err != nil {
		return Account{}, fmt.Errorf("it is no transcript: %w", err)
	}
	if again, err := t.Encode(); err != nil || !bytes.Equal(again, text) {
		return Account{}, errors.New("it is not written as a transcript of this version is")
	}
	plan, err := ParsePlan([]byte(t.Plan))
	if err != nil {
		return Account{}, fmt.Errorf("its plan: %w", err)
	}
	a := Account{Plan: plan, Log: t.Log}
	for i, e := range t.Entries {
		if i > 0 && e.Index <= t.Entries[i-1].Index {
			return Account{}, fmt.Errorf("entry %d is out of order", e.Index)
		}
		if err := logproof.Verify(e.Index, []byte(e.Entry), []byte(e.Proof), t.Log, vkey); err != nil {
			return Account{}, fmt.Errorf("entry %d does not verify: %w", e.Index, err)
		}
		var entry ledger.Entry
		if err := json.Unmarshal([]byte(e.Entry), &entry); err != nil {
			return Account{}, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if entry.Data["ceremony"] != plan.Digest() {
			return Account{}, fmt.Errorf("entry %d is about something else than this plan (%s)", e.Index, plan.Digest())
		}
		a.Entries = append(a.Entries, entry)
	}
	return a, a.complete()
}

// complete checks that nothing was left out: the last entry names all before it, and each step is there once, in order.
func (a Account) complete() error {
	n := len(a.Entries)
	if n < 2 || a.Entries[0].Type != Started || a.Entries[n-1].Type != Finished {
		return errors.New("it does not begin with the start of the ceremony and end with its end")
	}
	var listed, there []int64
	for _, v := range list(a.Entries[n-1].Data["entries"]) {
		f, _ := v.(float64)
		listed = append(listed, int64(f))
	}
	done := 0
	for _, e := range a.Entries[:n-1] {
		there = append(there, e.Sequence)
		if e.Type != StepDone {
			continue
		}
		done++
		if e.Data["step"] != float64(done) || done > len(a.Plan.Steps) || e.Data["action"] != a.Plan.Steps[done-1].String() {
			return fmt.Errorf("entry %d is not the plan's step %d", e.Sequence, done)
		}
	}
	if done != len(a.Plan.Steps) {
		return fmt.Errorf("%d of %d steps are there", done, len(a.Plan.Steps))
	}
	if !slices.Equal(listed, there) {
		return fmt.Errorf("the ceremony left the entries %v; here are %v", listed, there)
	}
	return nil
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// Lines tells the ceremony to people, an entry a line.
func (a Account) Lines() []string {
	lines := make([]string, 0, len(a.Entries)+2)
	lines = append(lines, a.Plan.Title, "plan sha256 "+a.Plan.Digest())
	for _, e := range a.Entries {
		what := strings.TrimPrefix(e.Resource, "hsm:")
		switch e.Type {
		case Started, Resumed:
			what = "agreed by " + join(e.Data["custodians"], "name", "consented_at")
		case StepDone:
			what = fmt.Sprintf("%v: %v: %v", e.Data["step"], e.Data["action"], e.Data["result"])
		case Finished:
			what = "independent client: " + join(e.Data["checks"], "key", "result")
			if len(list(e.Data["checks"])) == 0 {
				what = "no key was made"
			}
			for _, problem := range list(e.Data["problems"]) {
				what += fmt.Sprintf("; books and HSM disagree: %v", problem)
			}
		}
		if key, ok := e.Data["key"].(map[string]any); ok {
			what += fmt.Sprintf(", %v, %v, check value %v, local %v", key["kind"], key["class"], key["check_value"], key["local"])
		}
		lines = append(lines, fmt.Sprintf("%6d  %s  %-18s %s", e.Sequence, e.Time, e.Type, what))
	}
	return lines
}

func join(v any, first, second string) string {
	var parts []string
	for _, item := range list(v) {
		if m, ok := item.(map[string]any); ok {
			parts = append(parts, fmt.Sprintf("%v (%v)", m[first], m[second]))
		}
	}
	return strings.Join(parts, ", ")
}
