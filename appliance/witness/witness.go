// Package witness has the log's checkpoints cosigned by those who watch that it only ever grows (C2SP tlog-witness).
//
// A witness keeps the newest checkpoint of each log that it has seen, and cosigns one only with the proof that its tree begins
// with all of that. Whoever trusts enough witnesses needs no earlier copy of a log to know that nothing was rewritten.
//
// # What is promised
//
//   - Payments never wait for a witness. While the policy's quorum does not cosign, one entry says since when, and one says when it
//     does again.
//   - A cosignature is kept only if it verifies under the witness's key of the policy.
//
// # What is not
//
// A witness that answers nothing but "too old" or "another proof" has seen another history of this log: that is told in the log
// file and leaves the gap open; finding out why is for people.
package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	policy "github.com/transparency-dev/formats/witness"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// Resource is what entries about witnessing are about.
const Resource = "witnesses"

// Bounds of an exchange with a witness.
const (
	maxAnswer  = 64 << 10
	maxResends = 3 // for one checkpoint: each takes up the size that the witness said it knows
)

// Policy is who must cosign, and how many of them.
type Policy struct {
	group policy.Group
	text  []byte
}

// ReadPolicy reads a policy file: lines "witness NAME VKEY URL", "group NAME any|all|N NAME…", and "quorum NAME", as Sigsum
// and Tessera have them. Keys are of the types 0x04 (Ed25519) and 0x06 (ML-DSA-44) of C2SP signed-note.
func ReadPolicy(path string) (Policy, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Policy{}, err
	}
	group, err := policy.ParsePolicy(text)
	if err != nil {
		return Policy{}, fmt.Errorf("witness policy %s: %w", path, err)
	}
	if len(group.Endpoints()) == 0 {
		return Policy{}, fmt.Errorf("witness policy %s: its quorum names no witness", path)
	}
	return Policy{group, text}, nil
}

// Lines returns the policy as it stands in the file, for those who verify: without its comments.
func (p Policy) Lines() string {
	var lines strings.Builder
	for line := range strings.Lines(string(p.text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "log ") {
			lines.WriteString(line + "\n")
		}
	}
	return lines.String()
}

// Config of a [Publisher].
type Config struct {
	Policy   Policy
	Store    *store.Store
	Ledger   *ledger.Ledger
	Client   *http.Client  // nil means one that follows no redirects
	Period   time.Duration // between looks for a new checkpoint
	Patience time.Duration // without the quorum's cosignatures, before the gap is entered
	Timeout  time.Duration // for one exchange
	Now      func() time.Time
	Log      *slog.Logger
}

// Publisher brings checkpoints to the witnesses. Its methods are for one goroutine, but for [Publisher.Gap].
type Publisher struct {
	cfg   Config
	peers []*peer

	origin string      // of the log that the witnesses were last asked about
	behind time.Time   // since when there are entries that the quorum has not cosigned; zero while there are none
	open   atomic.Bool // a gap is entered
}

// Gap reports whether an entry says that the quorum does not cosign.
func (p *Publisher) Gap() bool { return p.open.Load() }

// peer is one witness.
type peer struct {
	url      string
	verifier note.Verifier
	known    int64 // size that it has seen last, as far as is known
	failing  bool  // so that each change is logged once
}

// New returns a publisher, which knows from the log whether a gap is open.
func New(ctx context.Context, cfg Config) (*Publisher, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if cfg.Ledger.WitnessKey() == "" {
		return nil, errors.New("witness: public witnesses want an Ed25519 signature, and this HSM has no such key: the log cannot be witnessed")
	}
	if p := cfg.Period; p <= 0 || cfg.Timeout <= 0 {
		return nil, errors.New("witness: a period and a timeout are wanted")
	}
	p := &Publisher{cfg: cfg}
	for url, verifier := range cfg.Policy.group.Endpoints() {
		p.peers = append(p.peers, &peer{url: url, verifier: verifier})
	}
	entries, err := cfg.Store.Read(ctx).LedgerEntriesOf(Resource)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		var last struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(entries[len(entries)-1].Entry, &last); err != nil {
			return nil, err
		}
		p.open.Store(last.Type == "witness.gap_opened")
	}
	return p, nil
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Period)
	defer tick.Stop()
	for {
		if err := p.Publish(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.ErrorContext(ctx, "checkpoints cannot be witnessed now", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Publish brings the newest checkpoint to each witness, keeps the cosignatures, and enters where a gap begins and ends. The
// error is the appliance's own; that of a witness is in the log file.
func (p *Publisher) Publish(ctx context.Context) error {
	read := p.cfg.Store.Read(ctx)
	checkpoint, err := p.cfg.Ledger.Checkpoint(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil // an empty log
	}
	if err != nil {
		return err
	}
	size, err := sizeOf(checkpoint)
	if err != nil {
		return err
	}
	if origin := ledger.OriginOf(checkpoint); origin != p.origin { // another log has followed it: witnesses know nothing of that one
		p.origin, p.behind = origin, time.Time{}
		for _, w := range p.peers {
			w.known = 0
		}
	}
	lines, err := read.Cosignatures(size)
	if err != nil {
		return err
	}
	cosigned := append(bytes.Clone(checkpoint), strings.Join(lines, "")...)
	if p.cfg.Policy.group.Satisfied(cosigned) {
		p.behind = time.Time{}
		return nil
	}
	if p.behind.IsZero() {
		p.behind = p.cfg.Now()
	}
	var fresh []string
	for _, w := range p.peers {
		line, err := p.ask(ctx, read, w, checkpoint, size)
		p.note(ctx, w, err)
		if err == nil {
			fresh = append(fresh, line)
			cosigned = append(cosigned, line...)
		}
	}
	return p.keep(ctx, size, fresh, p.cfg.Policy.group.Satisfied(cosigned))
}

// note logs the first failure of a witness, and its return.
func (p *Publisher) note(ctx context.Context, w *peer, err error) {
	switch {
	case err != nil && !w.failing:
		p.cfg.Log.WarnContext(ctx, "a witness does not cosign", "witness", w.verifier.Name(), "error", err)
	case err == nil && w.failing:
		p.cfg.Log.InfoContext(ctx, "a witness cosigns again", "witness", w.verifier.Name())
	}
	w.failing = err != nil
}

// keep stores cosignatures, and enters a gap's beginning or end.
func (p *Publisher) keep(ctx context.Context, size int64, lines []string, satisfied bool) error {
	now := p.cfg.Now()
	opens := !satisfied && !p.open.Load() && now.Sub(p.behind) >= p.cfg.Patience
	closes := satisfied && p.open.Load()
	if len(lines) == 0 && !opens && !closes {
		return nil
	}
	since := p.behind.UTC().Format(time.RFC3339)
	_, err := p.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		for _, line := range lines {
			if err := tx.PutCosignature(size, line); err != nil {
				return err
			}
		}
		switch {
		case opens:
			tx.Record(ledger.Entry{Type: "witness.gap_opened", Actor: "system", Origin: "local", Outcome: ledger.Failure, Resource: Resource,
				Data: map[string]any{"since": since, "size": size}})
		case closes:
			tx.Record(ledger.Entry{Type: "witness.gap_closed", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: Resource,
				Data: map[string]any{"size": size}})
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.open.Store((p.open.Load() || opens) && !closes)
	if satisfied {
		p.behind = time.Time{}
	}
	return nil
}

// ask has a witness cosign a checkpoint and returns the line of its signature. The witness may know an older tree than is
// thought here, or a newer one: then it says which, and is asked once more from there.
func (p *Publisher) ask(ctx context.Context, read store.Queries, w *peer, checkpoint []byte, size int64) (line string, err error) {
	for range maxResends {
		if w.known > size {
			return "", fmt.Errorf("it has seen %d entries, and there are %d: an old copy of this log was put back, or another one uses its name", w.known, size)
		}
		body, err := ledger.ProveConsistency(read, w.known, size, checkpoint)
		if err != nil {
			return "", err
		}
		answer, conflict, err := p.post(ctx, w, body)
		if err != nil {
			return "", err
		}
		if conflict {
			if w.known, err = strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64); err != nil || w.known < 0 {
				w.known = 0
				return "", errors.New("it knows another size than was sent, and does not say which")
			}
			continue
		}
		if line, err = cosignature(checkpoint, answer, w.verifier); err == nil {
			w.known = size
		}
		return line, err
	}
	return "", errors.New("it keeps changing what it knows of the log")
}

// post sends one add-checkpoint request. conflict is the witness's word that it knows another size.
func (p *Publisher) post(ctx context.Context, w *peer, body []byte) (answer []byte, conflict bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	request.Header.Set("Content-Type", "text/plain; charset=utf-8")
	response, err := p.cfg.Client.Do(request)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, false, err
	}
	switch {
	case response.StatusCode == http.StatusOK:
		return answer, false, nil
	case response.StatusCode == http.StatusConflict && strings.HasPrefix(response.Header.Get("Content-Type"), "text/x.tlog.size"):
		return answer, true, nil
	case response.StatusCode == http.StatusUnprocessableEntity || response.StatusCode == http.StatusConflict:
		return nil, false, fmt.Errorf("it refuses the proof (HTTP %d): it has seen another history of this log", response.StatusCode)
	case response.StatusCode == http.StatusNotFound:
		return nil, false, errors.New("it does not know this log (HTTP 404): give its operator the log's origin and its Ed25519 verifier key")
	default:
		return nil, false, fmt.Errorf("HTTP %d", response.StatusCode)
	}
}

// cosignature returns the line of an answer that is the witness's signature of the checkpoint.
func cosignature(checkpoint, answer []byte, verifier note.Verifier) (line string, err error) {
	text, _, _ := bytes.Cut(checkpoint, []byte("\n\n"))
	for candidate := range strings.Lines(string(answer)) {
		signed := append(append(bytes.Clone(text), "\n\n"...), candidate...)
		if opened, err := note.Open(signed, note.VerifierList(verifier)); err == nil && len(opened.Sigs) == 1 {
			return candidate, nil
		}
	}
	return "", errors.New("its answer holds no signature under its key of the policy")
}

// sizeOf reads a checkpoint's size (C2SP tlog-checkpoint: the second line).
func sizeOf(checkpoint []byte) (int64, error) {
	lines := strings.SplitN(string(checkpoint), "\n", 3)
	if len(lines) < 3 {
		return 0, errors.New("witness: a checkpoint of less than two lines")
	}
	return strconv.ParseInt(lines[1], 10, 64)
}
