package tokenization

import (
	"context"
	"fmt"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
	"github.com/finterra/finpay/pci/internal/pan"
)

// source is cards to tokenize.
type source interface {
	Len() int
	RevealPANs(f func(i int, digits []byte) error) error
	Describe(i int) pci.Card
}

// single is one card as a source.
type single struct{ card *pan.Card }

func (single) Len() int                { return 1 }
func (s single) Describe(int) pci.Card { return s.card.Describe() }

func (s single) RevealPANs(f func(i int, digits []byte) error) error {
	return s.card.RevealPAN(func(digits []byte) error { return f(0, digits) })
}

// A row of locked memory is a card's PAN, its tweak, and its hidden digits under each version.
const (
	rowNumber = 0
	rowTweak  = 20
	rowHidden = rowTweak + ff1.MaxTweak
	rowEach   = ff1.MaxDigits
)

// work is one call's scratch. What of it comes of digits stands in locked memory, or is a token.
type work struct {
	versions []version
	plan     *plan
	cards    source
	issues   []pci.Tokenized
	stride   int
	area     *pan.Area
	spaces   []*space // by card; nil for one that is refused
	open     []walker
	most     int // of them, at first
	lanes    []ff1.Lane
	tokens   []pci.Token
	images   []pci.TokenImage
	asked    []int // by token or image, the walker
	claims   map[string]claim
	token    [pan.MaxLength]byte // no digits of a PAN but those that the token shows
}

// walker is one card under one version of the key, on its way to a value that is free or its own.
type walker struct {
	card, version int
	steps         uint16
	state         state
	row           Issued // its own
	token         pci.Token
	image         pci.TokenImage
}

type state uint8

const (
	free  state = iota // no row has the value
	taken              // a row has it that is another card's
	own
	former // it was the card's own, and is replaced
)

// claim is a value that a card of the same batch is about to have.
type claim struct {
	card  int
	space *space
	steps uint16
}

// tokenize fills issues, one for each card.
func (s *Service) tokenize(ctx context.Context, domain string, cards source, versions []version, issues []pci.Tokenized) error {
	if len(issues) != cards.Len() {
		return fmt.Errorf("tokenization: %d places for the tokens of %d cards", len(issues), cards.Len())
	}
	if len(issues) == 0 {
		return nil
	}
	clear(issues)
	p, err := s.domains.plan(domain)
	if err != nil {
		return err
	}
	w := s.works.Get().(*work)
	defer func() {
		w.reset()
		s.works.Put(w)
	}()
	w.versions, w.plan, w.cards, w.issues = versions, p, cards, issues
	w.stride = rowHidden + rowEach*len(versions)
	if w.area, err = pan.NewArea(w.stride * len(issues)); err != nil {
		return err
	}
	defer w.area.Release()
	if err := w.load(); err != nil {
		return err
	}
	for len(w.open) > 0 {
		if err := w.encrypt(ctx); err != nil {
			return err
		}
		if err := w.ask(ctx, s.registry, domain); err != nil {
			return fmt.Errorf("look up tokens: %w", err)
		}
		w.judge()
	}
	return nil
}

// reset forgets a call, and keeps the memory.
func (w *work) reset() {
	clear(w.spaces)
	clear(w.open[:w.most])
	clear(w.lanes[:min(w.most, cap(w.lanes))])
	clear(w.tokens[:min(w.most, cap(w.tokens))])
	clear(w.images[:min(w.most, cap(w.images))])
	clear(w.claims)
	*w = work{spaces: w.spaces[:0], open: w.open[:0], lanes: w.lanes[:0], tokens: w.tokens[:0], images: w.images[:0],
		asked: w.asked[:0], claims: w.claims}
}

// load copies the cards, finds the format of each, and has it walk under each version.
func (w *work) load() error {
	if w.claims == nil {
		w.claims = make(map[string]claim)
	}
	defer func() { w.most = len(w.open) }()
	return w.cards.RevealPANs(func(i int, digits []byte) error {
		w.spaces = append(w.spaces, nil)
		issue := &w.issues[i]
		if issue.Err = pan.CheckPAN(digits); issue.Err != nil {
			return nil
		}
		space, err := w.plan.route(digits)
		if err != nil {
			issue.Err = err
			return nil
		}
		w.spaces[i] = space
		copy(w.row(i), digits)
		for v := range w.versions {
			copy(w.hidden(i, v), digits[space.from:space.to])
			w.open = append(w.open, walker{card: i, version: v})
		}
		return nil
	})
}

func (w *work) row(i int) []byte { return w.area.Bytes()[i*w.stride : (i+1)*w.stride] }

func (w *work) number(i int) []byte {
	return w.row(i)[rowNumber : rowNumber+w.spaces[i].length]
}

func (w *work) hidden(i, v int) []byte {
	from := rowHidden + v*rowEach
	return w.row(i)[from : from+w.spaces[i].to-w.spaces[i].from]
}

// encrypt takes each walker one step on, in one request for each version.
func (w *work) encrypt(ctx context.Context) error {
	for v := range w.versions {
		w.lanes = w.lanes[:0]
		for k := range w.open {
			if o := &w.open[k]; o.version == v {
				room := w.row(o.card)[rowTweak:rowHidden]
				w.lanes = append(w.lanes, w.spaces[o.card].lane(w.hidden(o.card, v), w.number(o.card), room))
			}
		}
		if len(w.lanes) == 0 {
			continue
		}
		if err := w.versions[v].encrypt(ctx, w.lanes); err != nil {
			return err
		}
	}
	return nil
}

// ask finds out which values have a row.
func (w *work) ask(ctx context.Context, registry Registry, domain string) error {
	w.tokens, w.asked = w.tokens[:0], w.asked[:0]
	for k := range w.open {
		if o := &w.open[k]; w.spaces[o.card].format != pci.TokenOpaque {
			o.token = pci.Token(w.spaces[o.card].token(w.token[:0], w.number(o.card), w.hidden(o.card, o.version)))
			w.tokens, w.asked = append(w.tokens, o.token), append(w.asked, k)
		}
	}
	if len(w.tokens) > 0 {
		if err := registry.Lookup(ctx, domain, w.tokens, w.found); err != nil {
			return err
		}
	}
	w.images, w.asked = w.images[:0], w.asked[:0]
	for k := range w.open {
		if o := &w.open[k]; w.spaces[o.card].format == pci.TokenOpaque {
			o.image = pci.TokenImage(w.hidden(o.card, o.version))
			w.images, w.asked = append(w.images, o.image), append(w.asked, k)
		}
	}
	if len(w.images) == 0 {
		return nil
	}
	return registry.LookupImages(ctx, domain, w.images, w.foundImage)
}

// found takes a row that has a walker's value. A permutation has one string for it: under the same version, after as
// many steps, it is the same card's.
func (w *work) found(i int, row Issued) {
	o := &w.open[w.asked[i]]
	if row.Format == w.spaces[o.card].format && row.KeyVersion == w.versions[o.version].number && row.Steps == o.steps {
		o.settle(row)
	} else if o.state == free {
		o.state = taken
	}
}

// foundImage takes a row that has a walker's image. Rows of other versions have nothing to do with the card; nothing is
// in the way of an image.
func (w *work) foundImage(i int, row Issued) {
	o := &w.open[w.asked[i]]
	if row.Format == pci.TokenOpaque && row.KeyVersion == w.versions[o.version].number && row.Steps == 0 {
		o.settle(row)
	}
}

// settle takes the row of the walker's own card.
func (o *walker) settle(row Issued) {
	if o.row = row; row.Replaced {
		o.state = former
		return
	}
	o.state = own
}

// judge settles the walkers that have arrived, and keeps those that must go on.
func (w *work) judge() {
	for k := range w.open {
		if o := &w.open[k]; o.state == own {
			w.known(o)
		}
	}
	rest := w.open[:0]
	for k := range w.open {
		o := w.open[k]
		if issue := &w.issues[o.card]; issue.Known || issue.Err != nil {
			continue
		}
		switch {
		case o.state == free:
			if o.version == 0 {
				w.fresh(&o)
			}
		case o.state == former && o.version != 0: // its successor is found under a newer version
		case o.steps == MaxSteps:
			if o.version == 0 {
				w.issues[o.card] = pci.Tokenized{Err: fmt.Errorf("tokenization: %d values of the card are other cards' tokens: %w", MaxSteps+1,
					&pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonUnsupported})}
			}
		default:
			rest = append(rest, walker{card: o.card, version: o.version, steps: o.steps + 1})
		}
	}
	w.open = rest
}

// known settles a card that has a token already. The newest version's counts, should there be two.
func (w *work) known(o *walker) {
	issue := &w.issues[o.card]
	if issue.Known {
		return
	}
	*issue = pci.Tokenized{Token: o.row, Known: true}
	issue.Token.Card = w.cards.Describe(o.card)
}

// fresh gives a card a value that no row has. Another version may still turn out to have its token.
func (w *work) fresh(o *walker) {
	space := w.spaces[o.card]
	issue := &w.issues[o.card]
	issue.Token = Issued{Domain: w.plan.id, Token: o.token, Format: space.format, KeyVersion: w.versions[0].number, Steps: o.steps,
		Image: o.image, Card: w.cards.Describe(o.card)}
	key := string(o.token) + string(o.image) // one of them is empty
	if len(w.issues) > 1 {
		switch first, claimed := w.claims[key]; {
		case !claimed:
			w.claims[key] = claim{o.card, space, o.steps}
		case first.space == space && first.steps == o.steps: // the same card
			issue.Token.Token = w.issues[first.card].Token.Token
			return
		default:
			*issue = pci.Tokenized{Err: ErrContended}
			return
		}
	}
	if space.format == pci.TokenOpaque {
		issue.Token.Token = newOpaque()
	}
}
