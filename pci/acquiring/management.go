package acquiring

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// function is what a network management message is about.
type function string

// The functions that are known here. A host may ask for each.
const (
	signOn    function = "sign-on"
	signOff   function = "sign-off"
	keyChange function = "key change"
	cutover   function = "cutover"
	echoTest  function = "echo test"
)

// functions are their codes: the network management information code of 1987 (annex A, DE 70), the function code of 1993
// (annex A, DE 24).
var functions = []struct {
	what           function
	de1987, de1993 string
}{
	{signOn, "001", "801"},
	{signOff, "002", "802"},
	{keyChange, "101", "811"},
	{cutover, "201", "821"},
	{echoTest, "301", "831"},
}

// functionField returns the number of the field in which the function stands.
func (c *Connector) functionField() int {
	if c.speaks1993() {
		return 24
	}
	return 70
}

func (c *Connector) codeOf(what function) string {
	for _, f := range functions {
		switch {
		case f.what != what:
		case c.speaks1993():
			return f.de1993
		default:
			return f.de1987
		}
	}
	return ""
}

// functionOf returns the function of a code, and the code itself for one that is not known.
func (c *Connector) functionOf(code string) function {
	for _, f := range functions {
		if c.speaks1993() && f.de1993 == code || !c.speaks1993() && f.de1987 == code {
			return f.what
		}
	}
	// All security functions are about keys (1xx; 81x), and none is served here.
	if len(code) == 3 && (!c.speaks1993() && code[0] == '1' || c.speaks1993() && code[:2] == "81") {
		return keyChange
	}
	return function(code)
}

// manage sends a network management request (0800, 1804) and waits until the host agrees.
func (c *Connector) manage(ctx context.Context, l *line, what function) error {
	stan := fmt.Sprintf("%06d", c.stan.Add(1)%1_000_000)
	q := query{key: key{mti: answerTo(c.mti(management)), stan: stan}}
	build := func(_ context.Context, dst, _ []byte) ([]byte, error) {
		now := time.Now().UTC()
		w := iso8583.NewWriter(c.spec, dst, c.mti(management))
		w.Text(7, now.Format(transmission))
		w.Text(11, stan)
		if c.speaks1993() {
			w.Text(12, now.Format(local1993))
		}
		w.Text(c.functionField(), c.codeOf(what))
		return w.Finish()
	}
	a, _, err := c.exchange(ctx, l, q, build)
	if err != nil {
		return err
	}
	if a.code != "00" {
		return fmt.Errorf("refused with %s", a)
	}
	return nil
}

// serve answers a network management request of the host: yes to all but what is not served here, which is everything
// about keys and what is not known. Whether the host takes the answer shows in what it does next.
func (c *Connector) serve(ctx context.Context, l *line, request *iso8583.Message) {
	what, code := c.functionOf(request.Text(c.functionField())), "00"
	switch what {
	case signOn, signOff, echoTest, cutover:
	default:
		code = "40" // requested function not supported
	}
	mti := answerTo(request.MTI())
	if c.speaks1993() {
		code = iso8583.ActionCode(mti, code)
	}
	_, err := l.transmit(ctx, func(_ context.Context, dst, _ []byte) ([]byte, error) {
		w := iso8583.NewWriter(c.spec, dst, mti)
		for _, de := range []int{7, 11, 12, 24, 39, 70} {
			switch {
			case de == 39:
				w.Text(de, code)
			case request.Has(de):
				w.Text(de, request.Text(de))
			}
		}
		return w.Finish()
	})
	if err != nil {
		slog.WarnContext(ctx, "the acquirer's network management request could not be answered", "error", err)
	}
	c.happened(ctx, what, request)
}

// Event is something that the acquirer told of its own accord.
type Event struct {
	Kind EventKind
	Day  string // the new settlement day as the acquirer wrote it (DE 15, or DE 28 in the edition of 1993); may be empty
}

// EventKind says what happened.
type EventKind string

// The events.
const (
	// Cutover means that the acquirer has closed its books of a day: what follows belongs to the next one.
	Cutover EventKind = "cutover"
	// KeyChangeRefused means that the acquirer wants to exchange keys, which is not done here, and was told so.
	KeyChangeRefused EventKind = "key_change_refused"
)

// happened tells of a request of the host that is more than a test of the line.
func (c *Connector) happened(ctx context.Context, what function, request *iso8583.Message) {
	day := 15
	if c.speaks1993() {
		day = 28
	}
	e := Event{Day: request.Text(day)}
	switch what {
	case cutover:
		e.Kind = Cutover
		slog.InfoContext(ctx, "the acquirer has cut over to another settlement day")
	case keyChange:
		e.Kind = KeyChangeRefused
		slog.WarnContext(ctx, "the acquirer wants to change keys, which is not supported")
	default:
		return
	}
	if c.cfg.Events != nil {
		c.cfg.Events(e)
	}
}
