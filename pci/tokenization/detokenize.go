package tokenization

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
	"github.com/finterra/finpay/pci/internal/pan"
)

// A row of locked memory, for a token that is turned back, is the PAN, the tweak, and the hidden digits.
const backRow = rowHidden + rowEach

// lend turns an issued token back into its card, without a CVV, for the length of one call.
func (s *Service) lend(ctx context.Context, domain string, token pci.Token, use func(*pan.Card) error) error {
	issued, err := s.registry.Find(ctx, domain, token)
	if err != nil {
		return fmt.Errorf("look up token: %w", err)
	}
	versions := s.keys.borrow()
	defer versions.giveBack()
	var card *pan.Card
	var failed [1]error
	err = s.restore(ctx, versions, domain, []Issued{issued}, failed[:], func(_ int, digits []byte) (err error) {
		card, err = pan.New(digits, nil, issued.Card.Expiry)
		return err
	})
	if err != nil || failed[0] != nil {
		return errors.Join(err, failed[0])
	}
	defer card.Release()
	if err := sameCard(card.Describe(), issued); err != nil {
		return err
	}
	return use(card)
}

// lendAll does the same for many tokens, live or not. Without any, there is no use.
func (s *Service) lendAll(ctx context.Context, versions *versions, domain string, tokens []pci.Token, use func(*pan.Batch, []error) error) error {
	if len(tokens) == 0 {
		return nil
	}
	rows := make([]Issued, len(tokens))
	failed := make([]error, len(tokens))
	for i := range failed {
		failed[i] = pci.ErrNotIssued
	}
	if err := s.registry.Lookup(ctx, domain, tokens, func(i int, row Issued) { rows[i], failed[i] = row, nil }); err != nil {
		return fmt.Errorf("look up tokens: %w", err)
	}
	cards, err := pan.NewBatch(len(tokens))
	if err != nil {
		return err
	}
	defer cards.Release()
	err = s.restore(ctx, versions, domain, rows, failed, func(i int, digits []byte) error {
		return cards.Put(i, digits, rows[i].Card.Expiry)
	})
	if err != nil {
		return err
	}
	for i := range rows {
		if failed[i] == nil {
			failed[i] = sameCard(cards.Describe(i), rows[i])
		}
		if failed[i] != nil {
			cards.Empty(i)
		}
	}
	return use(cards, failed)
}

// sameCard wants a card to be the one that a token was issued for. Any key leads to some valid number: only the truncation
// tells that it was the right one.
func sameCard(card pci.Card, issued Issued) error {
	if card.Truncated != issued.Card.Truncated {
		return fmt.Errorf("tokenization: an issued token leads back to another card; is version %d of the key the one it was made under?", issued.KeyVersion)
	}
	return nil
}

// restore calls take with the PAN behind each row whose place in failed is nil, and notes there what cannot be turned back.
func (s *Service) restore(ctx context.Context, versions *versions, domain string, rows []Issued, failed []error, take func(i int, digits []byte) error) error {
	p, err := s.domains.plan(domain)
	if err != nil {
		return err
	}
	area, err := pan.NewArea(backRow * len(rows))
	if err != nil {
		return err
	}
	defer area.Release()
	b := back{memory: area.Bytes(), spaces: make([]*space, len(rows)), rows: rows, failed: failed}
	lanes := make(map[uint32][]waiting)
	for i := range rows {
		if failed[i] != nil {
			continue
		}
		if _, ok := versions.version(rows[i].KeyVersion); !ok {
			failed[i] = fmt.Errorf("tokenization: version %d of the key is not there: %w", rows[i].KeyVersion, pci.ErrUnavailable)
			continue
		}
		lane, err := b.load(i, p)
		if failed[i] = err; err == nil {
			lanes[rows[i].KeyVersion] = append(lanes[rows[i].KeyVersion], waiting{lane, rows[i].Steps})
		}
	}
	for number, waiting := range lanes {
		v, _ := versions.version(number)
		if err := v.undo(ctx, waiting); err != nil {
			return err
		}
	}
	b.deliver(take)
	return nil
}

// waiting is a lane that has so many steps to undo after the first.
type waiting struct {
	lane  ff1.Lane
	steps uint16
}

// undo decrypts each lane once, and once more for each step.
func (v version) undo(ctx context.Context, all []waiting) error {
	lanes := make([]ff1.Lane, 0, len(all))
	for step := uint16(0); ; step++ {
		lanes = lanes[:0]
		for _, w := range all {
			if w.steps >= step {
				lanes = append(lanes, w.lane)
			}
		}
		if len(lanes) == 0 {
			return nil
		}
		if err := v.decrypt(ctx, lanes); err != nil {
			return err
		}
	}
}

// back is rows on their way back to their cards.
type back struct {
	memory []byte // locked
	rows   []Issued
	spaces []*space
	failed []error
}

// load writes a row's hidden digits and returns their lane.
func (b *back) load(i int, p *plan) (ff1.Lane, error) {
	row := &b.rows[i]
	text := string(row.Token)
	length := len(text)
	if row.Format == pci.TokenOpaque {
		text = string(row.Image)
		length = len(text) + 1
	}
	format := place(row.Format)
	if format < 0 || length < pan.MinLength || length > pan.MaxLength || p.spaces[format][length] == nil || row.Steps > MaxSteps || !numeral(text) {
		return ff1.Lane{}, fmt.Errorf("tokenization: an issued token of %d characters is not of format %q", len(row.Token), row.Format)
	}
	s := p.spaces[format][length]
	b.spaces[i] = s
	token := append(b.number(i)[:0], text...)
	hidden := s.hidden(b.hidden(i), token)
	return s.lane(hidden, token, b.memory[i*backRow+rowTweak:i*backRow+rowHidden]), nil
}

func numeral(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

func (b *back) number(i int) []byte {
	return b.memory[i*backRow+rowNumber : i*backRow+rowTweak]
}

func (b *back) hidden(i int) []byte {
	from := i*backRow + rowHidden
	return b.memory[from : from+b.spaces[i].to-b.spaces[i].from]
}

// deliver puts the numbers together.
func (b *back) deliver(take func(i int, digits []byte) error) {
	for i, s := range b.spaces {
		if s == nil || b.failed[i] != nil {
			continue
		}
		token := string(b.rows[i].Token)
		number := s.number(b.number(i), []byte(token), b.hidden(i))
		if err := take(i, number); err != nil {
			b.failed[i] = fmt.Errorf("tokenization: an issued token does not lead back to a card: %w", err)
		}
	}
}
