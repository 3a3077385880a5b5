package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/appliance/auditor"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

type auditorCommand struct {
	Link        auditorLinkCommand        `cmd:"" help:"Make a link for one person that opens the log in one browser, once, and print it."`
	Certificate auditorCertificateCommand `cmd:"" help:"Register one person's certificate, which opens the log on audit.listen."`
	List        auditorListCommand        `cmd:"" help:"List who may or might look at the log."`
	End         auditorEndCommand         `cmd:"" help:"End all that one auditor was granted, at once."`
}

type auditorLinkCommand struct {
	Name string        `required:"" help:"The person's name. It stands in a row that can be deleted; entries have an id."`
	For  time.Duration `default:"8h" help:"From now until when the link, and what it opens, are good: at most 720h."`
}

// Run makes a link.
func (c auditorLinkCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	made, err := operate[linkMade](ctx, g, "auditor link", linkAuditor(c))
	if err != nil {
		return err
	}
	fmt.Printf("%s/audit/open/%s\n", cfg.PublicURL, made.Secret)
	fmt.Fprintf(os.Stderr, "For %s (%s), once, until %s. Hand it over on a way that nobody else reads.\n", c.Name, made.Auditor, made.Until.UTC().Format(time.RFC3339))
	return nil
}

type linkAuditor struct {
	Name string
	For  time.Duration
}

type linkMade struct {
	Secret, Auditor string
	Until           time.Time
}

// auditing returns what an operator's commands about auditors work on. It needs no index: it searches nothing.
func (o *operations) auditing() *auditor.Service {
	if o.serving != nil {
		return o.serving.auditors
	}
	return auditor.New(auditor.Config{Store: o.node.store, Ledger: o.node.ledger, Logins: o.node.merchants})
}

func (o *operations) linkAuditor(ctx context.Context, by ledger.Operator, q linkAuditor) (linkMade, error) {
	secret, grant, err := o.auditing().Link(ctx, by, q.Name, q.For)
	return linkMade{secret, grant.AuditorID, grant.ExpiresAt}, err
}

type auditorCertificateCommand struct {
	Name        string        `required:"" help:"The person's name, as for a link."`
	Certificate string        `required:"" type:"existingfile" help:"Their certificate, in PEM. It is known by its public key, whoever has signed it." placeholder:"FILE"`
	For         time.Duration `default:"2160h" help:"From now until when it is good: at most 9528h."`
}

// Run registers a certificate.
func (c auditorCertificateCommand) Run(ctx context.Context, g globals) error {
	text, err := os.ReadFile(c.Certificate)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("%s is no certificate in PEM (-----BEGIN CERTIFICATE-----)", c.Certificate)
	}
	grant, err := operate[store.AuditorGrant](ctx, g, "auditor certificate", certifyAuditor{c.Name, c.For, block.Bytes})
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s, until %s.\n", c.Name, grant.AuditorID, grant.ExpiresAt.UTC().Format(time.RFC3339))
	return nil
}

type certifyAuditor struct {
	Name        string
	For         time.Duration
	Certificate []byte // DER
}

func (o *operations) certifyAuditor(ctx context.Context, by ledger.Operator, q certifyAuditor) (store.AuditorGrant, error) {
	certificate, err := x509.ParseCertificate(q.Certificate)
	if err != nil {
		return store.AuditorGrant{}, err
	}
	return o.auditing().Certificate(ctx, by, q.Name, certificate, q.For)
}

type auditorListCommand struct{}

// Run lists what was granted.
func (auditorListCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[[]auditor.Granted](ctx, g, "auditor list", nothing{})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "AUDITOR\tNAME\tBY\tSTATE\tUNTIL")
	for _, granted := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", granted.AuditorID, granted.Name, granted.Kind, stateOf(granted, time.Now()), granted.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return w.Flush()
}

func stateOf(g auditor.Granted, now time.Time) string {
	switch {
	case !g.EndedAt.IsZero():
		return "ended"
	case now.After(g.ExpiresAt):
		return "over"
	case g.Kind == store.GrantLink && g.OpenedAt.IsZero():
		return "not opened"
	}
	return "in force"
}

func (o *operations) listAuditors(ctx context.Context, _ ledger.Operator, _ nothing) ([]auditor.Granted, error) {
	return o.auditing().List(ctx)
}

type auditorEndCommand struct {
	Auditor string `arg:"" help:"The auditor's id, aud_…"`
	Forget  bool   `help:"Delete the name, too. The id stays in the log."`
}

// Run ends what an auditor was granted.
func (c auditorEndCommand) Run(ctx context.Context, g globals) error {
	if _, err := operate[nothing](ctx, g, "auditor end", endAuditor(c)); err != nil {
		return err
	}
	fmt.Println("It has ended.")
	return nil
}

type endAuditor struct {
	Auditor string
	Forget  bool
}

func (o *operations) endAuditor(ctx context.Context, by ledger.Operator, q endAuditor) (nothing, error) {
	return nothing{}, o.auditing().End(ctx, by, q.Auditor, q.Forget)
}
