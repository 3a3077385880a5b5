package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/finterra/finpay/api/client"
)

// These commands are clients: they handle card numbers, as whoever holds them does, and no appliance runs in their
// process.

// connection says how a client command reaches an appliance.
type connection struct {
	URL     string `help:"The appliance. Without it, public_url of the configuration." placeholder:"https://HOST:PORT"`
	CA      string `help:"Authority of its certificate, in PEM. Without it, the certificate of the configuration, or the system's authorities." type:"existingfile" placeholder:"FILE"`
	KeyFile string `help:"File with the API key. Without it, the environment variable FINPAY_API_KEY." type:"existingfile" placeholder:"FILE"`
	Domain  string `help:"Token space. Without it, that of the key's merchant."`
}

func (c connection) client(g globals, open bool, logKey string) (*client.Client, error) {
	settings := client.Config{URL: c.URL, Domain: c.Domain, Open: open, Key: os.Getenv("FINPAY_API_KEY")}
	if c.KeyFile != "" {
		text, err := os.ReadFile(c.KeyFile)
		if err != nil {
			return nil, err
		}
		settings.Key = strings.TrimSpace(string(text))
	}
	if settings.Key == "" {
		return nil, errors.New("there is no API key: set FINPAY_API_KEY, or name a file with --key-file")
	}
	if logKey != "" {
		text, err := os.ReadFile(logKey)
		if err != nil {
			return nil, err
		}
		settings.LogKey = string(text)
	}
	ca := c.CA
	if settings.URL == "" {
		cfg, err := g.load()
		if err != nil {
			return nil, fmt.Errorf("--url is not given: %w", err)
		}
		settings.URL = cfg.PublicURL
		if ca == "" {
			ca = cfg.TLS.Certificate
		}
	}
	if ca != "" {
		roots, err := pool(x509.NewCertPool(), ca)
		if err != nil {
			return nil, err
		}
		settings.Roots = roots
	}
	return client.New(settings)
}

type tokenizeCommand struct {
	connection
	Open   bool   `help:"Send the cards open inside TLS, not sealed to the HSM." xor:"sealing"`
	LogKey string `help:"File with the public key of the appliance's log (finpay ledger key): cards are sealed to a key alone that the log proves." type:"existingfile" placeholder:"FILE" xor:"sealing"`
}

// Run reads cards from standard input and writes what became of them to standard output, a line each. It fails if a card
// got no token.
func (c tokenizeCommand) Run(ctx context.Context, g globals) error {
	api, err := c.client(g, c.Open, c.LogKey)
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batch, err := api.Batch(ctx)
	if err != nil {
		return err
	}
	bar := newProgress(os.Stdin)
	defer bar.end()
	sent := make(chan error, 1)
	go func() {
		defer batch.CloseSend()
		sent <- sendCards(bar.reader(os.Stdin), batch)
	}()
	counts, err := writeResults(os.Stdout, batch, bar)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	bar.end()
	fmt.Fprintln(os.Stderr, counts)
	if counts.refused > 0 {
		return fmt.Errorf("%d cards got no token; their lines say why", counts.refused)
	}
	return nil
}

// sendCards sends each line of NDJSON as a card. A line that is no JSON of one ends the sending: its number is in the error,
// its text is not.
func sendCards(in io.Reader, batch *client.Batch) error {
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		var card client.Card
		decoder := json.NewDecoder(strings.NewReader(lines.Text()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&card); err != nil {
			return fmt.Errorf(`line %d is not {"number":"…","expiry":"YYYY-MM"}`, n)
		}
		if err := batch.Send(card); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return nil
}

// tokenized counts what became of cards.
type tokenized struct{ tokens, issued, refused int }

func (t tokenized) String() string {
	return fmt.Sprintf("%d tokens, of which %d are new; %d cards refused", t.tokens, t.issued, t.refused)
}

func writeResults(out io.Writer, batch *client.Batch, bar *progress) (counts tokenized, err error) {
	buffered := bufio.NewWriterSize(out, 1<<16)
	defer func() { err = errors.Join(err, buffered.Flush()) }()
	lines := json.NewEncoder(buffered)
	lines.SetEscapeHTML(false)
	for {
		result, err := batch.Receive()
		if errors.Is(err, io.EOF) {
			return counts, nil
		}
		if err != nil {
			return counts, err
		}
		counts.add(result)
		bar.count(counts.tokens + counts.refused)
		if err := lines.Encode(lineOf(result)); err != nil {
			return counts, fmt.Errorf("standard output: %w", err)
		}
	}
}

func (t *tokenized) add(r client.Result) {
	switch {
	case r.Err != nil:
		t.refused++
		return
	case r.Issued:
		t.issued++
	}
	t.tokens++
}

// resultLine is a line of standard output.
type resultLine struct {
	Line      int    `json:"line"`
	Token     string `json:"token,omitempty"`
	Issued    bool   `json:"issued,omitempty"`
	Brand     string `json:"brand,omitempty"`
	Truncated string `json:"truncated,omitempty"`
	Error     string `json:"error,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

func lineOf(r client.Result) resultLine {
	line := resultLine{Line: r.Line, Token: string(r.Token), Issued: r.Issued, Brand: string(r.Brand), Truncated: string(r.Truncated)}
	if problem, ok := errors.AsType[*client.Error](r.Err); ok {
		line.Error, line.Detail = problem.Code, problem.Detail
	}
	return line
}
