package tokenization

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Domain is the configuration of a token space, a merchant's or a group's.
type Domain struct {
	ID       string          // small letters, digits and hyphens, up to 64
	Format   pci.TokenFormat // of its tokens
	Fallback pci.TokenFormat // for cards that Format cannot serve; empty for none
	// Accept is the cards that the domain takes. Empty means all that its formats serve; what is listed they have to serve.
	Accept []Range
}

// Range is PANs by their first digits.
type Range struct {
	First, Last string // up to six digits, both as many; Last may be empty for just First
	Lengths     []int  // of the PANs; empty for all that the formats serve
}

// DomainError reports PANs that a format cannot serve, with the arithmetic.
type DomainError struct {
	Format pci.TokenFormat
	Length int  // digits of the PAN
	Free   int  // digits left to encrypt
	Lead   bool // it is about PANs that begin as the format's tokens do
}

func (e *DomainError) Error() string {
	if e.Lead {
		return fmt.Sprintf("%s cannot serve a %d-digit PAN that begins with %c: so do all of its tokens, and among 10^%d values one in ten has a valid "+
			"check digit and could be taken for a PAN", e.Format, e.Length, lead, e.Free)
	}
	return fmt.Sprintf("%s cannot serve a %d-digit PAN: %d free digits give 10^%d values, and SP 800-38G asks for 10^6",
		e.Format, e.Length, e.Free, e.Free)
}

// ErrNoDomain means that tokens were asked for in a domain that is not configured.
var ErrNoDomain = errors.New("tokenization: there is no such domain")

// Domains is what [Compile] made. It is safe for concurrent use.
type Domains struct {
	plans  map[string]*plan
	tweaks map[[8]byte]string // by whom they are taken
}

// plan is a compiled domain.
type plan struct {
	id     string
	accept []Range
	// serves is which space serves a PAN, by its length and by whether it begins as tokens do; why is why none does.
	serves [pan.MaxLength + 1][2]*space
	why    [pan.MaxLength + 1][2]*DomainError
	// spaces has all formats, since a domain may have tokens from before its format was changed.
	spaces [3][pan.MaxLength + 1]*space
}

// Compile works out which format serves which PANs of each domain. It refuses what a domain lists and no format of it
// can serve, with a [*DomainError], and whatever is not a domain.
func Compile(domains []Domain) (*Domains, error) {
	d := &Domains{plans: make(map[string]*plan), tweaks: make(map[[8]byte]string)}
	for _, domain := range domains {
		if err := d.add(domain); err != nil {
			return nil, fmt.Errorf("domain %q: %w", domain.ID, err)
		}
	}
	return d, nil
}

// Refused returns why some PANs of a domain have no format, in the order of their lengths. A domain that lists what it
// accepts may refuse others besides.
func (d *Domains) Refused(id string) ([]*DomainError, error) {
	p, err := d.plan(id)
	if err != nil {
		return nil, err
	}
	var refused []*DomainError
	for length := pan.MinLength; length <= pan.MaxLength; length++ {
		for _, why := range p.why[length] {
			if why != nil && !slices.ContainsFunc(refused, func(e *DomainError) bool { return *e == *why }) {
				refused = append(refused, why)
			}
		}
	}
	return refused, nil
}

// Served says how PANs of one length are served in a domain.
type Served struct {
	Digits  int
	Format  pci.TokenFormat // empty where they are not
	Refused *DomainError    // why not
}

// Serves returns how a domain serves PANs, length by length. Those that begin as tokens do may fare worse: see
// [Domains.Refused].
func (d *Domains) Serves(id string) ([]Served, error) {
	p, err := d.plan(id)
	if err != nil {
		return nil, err
	}
	var all []Served
	for length := pan.MinLength; length <= pan.MaxLength; length++ {
		s := Served{Digits: length, Refused: p.why[length][0]}
		if space := p.serves[length][0]; space != nil {
			s.Format, s.Refused = space.format, nil
		}
		all = append(all, s)
	}
	return all, nil
}

var domainID = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// add compiles a domain.
func (d *Domains) add(domain Domain) error {
	if !domainID.MatchString(domain.ID) {
		return errors.New("an id is 1 to 64 small letters, digits and hyphens")
	}
	if d.plans[domain.ID] != nil {
		return errors.New("it is there twice")
	}
	p, err := compile(domain)
	if err != nil {
		return err
	}
	for _, spaces := range p.spaces {
		for _, s := range spaces {
			if s == nil {
				continue
			}
			name := fmt.Sprintf("%s, %s, %d digits", domain.ID, s.format, s.length)
			if other := d.tweaks[s.tweak]; other != "" {
				return fmt.Errorf("%s has the tweak of %s: choose another id", name, other)
			}
			d.tweaks[s.tweak] = name
		}
	}
	d.plans[domain.ID] = p
	return nil
}

// plan returns a domain's plan.
func (d *Domains) plan(id string) (*plan, error) {
	if p := d.plans[id]; p != nil {
		return p, nil
	}
	return nil, ErrNoDomain
}

func compile(d Domain) (*plan, error) {
	if place(d.Format) < 0 {
		return nil, fmt.Errorf("there is no format %q", d.Format)
	}
	if d.Fallback != "" && (place(d.Fallback) < 0 || d.Fallback == d.Format) {
		return nil, fmt.Errorf("%q is no fallback for %s", d.Fallback, d.Format)
	}
	p := &plan{id: d.ID}
	for length := pan.MinLength; length <= pan.MaxLength; length++ {
		for i, format := range formats {
			p.spaces[i][length], _ = newSpace(d.ID, format, length)
		}
		for first := range p.serves[length] {
			p.serves[length][first], p.why[length][first] = choose(d, length, first == 1)
		}
	}
	for _, r := range d.Accept {
		r, err := r.checked()
		if err != nil {
			return nil, err
		}
		if err := p.covers(r); err != nil {
			return nil, fmt.Errorf("it is to accept %s, but %w", r, err)
		}
		p.accept = append(p.accept, r)
	}
	return p, nil
}

// choose returns the space that serves PANs of a length, or why the domain's own format does not.
func choose(d Domain, length int, likeToken bool) (*space, *DomainError) {
	s, why := serving(d.ID, d.Format, length, likeToken)
	if why != nil && d.Fallback != "" {
		if s, failed := serving(d.ID, d.Fallback, length, likeToken); failed == nil {
			return s, nil
		}
	}
	return s, why
}

func serving(domain string, format pci.TokenFormat, length int, likeToken bool) (*space, *DomainError) {
	s, why := newSpace(domain, format, length)
	if why == nil && likeToken && format == pci.TokenLast4 {
		return nil, &DomainError{Format: format, Length: length, Free: s.to - s.from, Lead: true}
	}
	return s, why
}

// covers wants each length that a range lists to be served, and where it lists none, some.
func (p *plan) covers(r Range) error {
	lengths := r.Lengths
	if len(lengths) == 0 {
		lengths = []int{12, 13, 14, 15, 16, 17, 18, 19}
	}
	for first := range 2 {
		if first == 0 && r.First[0] == lead || first == 1 && r.Last[0] != lead {
			continue
		}
		var why error
		served := 0
		for _, length := range lengths {
			if p.serves[length][first] != nil {
				served++
			} else if why == nil || length == 16 { // the length of most cards makes the plainest example
				why = p.why[length][first]
			}
		}
		if served == 0 || len(r.Lengths) > 0 && served < len(lengths) {
			return why
		}
	}
	return nil
}

var prefix = regexp.MustCompile(`^[0-9]{1,6}$`)

func (r Range) checked() (Range, error) {
	if r.Last == "" {
		r.Last = r.First
	}
	if !prefix.MatchString(r.First) || !prefix.MatchString(r.Last) || len(r.First) != len(r.Last) || r.First > r.Last {
		return r, fmt.Errorf("%s is no range of first digits", r)
	}
	for _, length := range r.Lengths {
		if length < pan.MinLength || length > pan.MaxLength {
			return r, fmt.Errorf("no PAN has %d digits", length)
		}
	}
	return r, nil
}

// String returns "9792" or "510000-559999".
func (r Range) String() string { return strings.TrimSuffix(r.First+"-"+r.Last, "-"+r.First) }

func (r Range) has(number []byte) bool {
	first := string(number[:len(r.First)]) // part of the truncation; compared, not kept
	return r.First <= first && first <= r.Last && (len(r.Lengths) == 0 || slices.Contains(r.Lengths, len(number)))
}

// route returns the space that serves a PAN.
func (p *plan) route(number []byte) (*space, error) {
	unsupported := &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonUnsupported}
	if len(p.accept) > 0 && !slices.ContainsFunc(p.accept, func(r Range) bool { return r.has(number) }) {
		return nil, unsupported
	}
	first := 0
	if number[0] == lead {
		first = 1
	}
	if why := p.why[len(number)][first]; why != nil {
		return nil, fmt.Errorf("%w: %w", unsupported, why)
	}
	return p.serves[len(number)][first], nil
}
