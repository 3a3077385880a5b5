package threeds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"
	"unique"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci/internal/pan"
)

// maxRanges bounds a PRes: the schemes' answers have some 100,000 ranges of 200 bytes.
const maxRanges = 64 << 20

// MaxBody is how much a transport must let through of an answer, in bytes: a little more than any that is taken.
const MaxBody = maxRanges + maxAnswer

// preq is a Preparation Request (table B.6).
type preq struct {
	MessageType             string `json:"messageType"`
	MessageVersion          string `json:"messageVersion"`
	ThreeDSServerRefNumber  string `json:"threeDSServerRefNumber"`
	ThreeDSServerOperatorID string `json:"threeDSServerOperatorID,omitempty"`
	ThreeDSServerTransID    string `json:"threeDSServerTransID"`
	SerialNum               string `json:"serialNum,omitempty"`
}

// pres is a Preparation Response (table B.7).
type pres struct {
	header
	ThreeDSServerTransID string          `json:"threeDSServerTransID"`
	DSTransID            string          `json:"dsTransID"`
	SerialNum            string          `json:"serialNum"`
	CardRangeData        []cardRangeData `json:"cardRangeData"`
	MessageExtension     []extension     `json:"messageExtension"`
}

// cardRangeData is table A.6.
type cardRangeData struct {
	StartRange              string `json:"startRange"`
	EndRange                string `json:"endRange"`
	ActionInd               string `json:"actionInd"`
	ACSStartProtocolVersion string `json:"acsStartProtocolVersion"`
	ACSEndProtocolVersion   string `json:"acsEndProtocolVersion"`
	ThreeDSMethodURL        string `json:"threeDSMethodURL"`
}

// cardRange is a range of PANs. Its bounds are padded to the greatest length, the end with nines, so that a range
// given for 16 digits and one given for 19 can be compared with PANs of any length by their leading digits.
type cardRange struct {
	start, end [pan.MaxLength]byte
	speaks     bool   // the range's issuers speak MessageVersion
	method     string // 3DS Method URL, empty for none
}

// rangeTable is a snapshot of the directory server's ranges, sorted and without overlaps; it is never changed.
type rangeTable struct {
	serial string
	ranges []cardRange
}

// enrolment is what the ranges say of a card.
type enrolment struct {
	status enrolmentStatus
	method string // 3DS Method URL, empty for none
}

type enrolmentStatus int

const (
	// rangesUnknown holds until a first PRes was accepted. The card is then treated as enrolled: the directory
	// server answers an AReq for a card that it does not know with an error, which costs one message, while the
	// opposite guess would let cards through without 3-D Secure whenever the ranges cannot be fetched.
	rangesUnknown enrolmentStatus = iota
	insideRanges
	outsideRanges
	otherVersion
)

// compInd returns threeDSCompInd: U where the range has no 3DS Method, Y where it has one that has run, N where that did not
// (table A.1). While the ranges are unknown, so is the method URL.
func (e enrolment) compInd(done bool) string {
	switch {
	case e.method == "":
		return "U"
	case done:
		return "Y"
	default:
		return "N"
	}
}

// lookUp finds the card's range. The digits are compared where they lie, in locked memory.
func (s *Server) lookUp(card *pan.Card) enrolment {
	table := s.ranges.Load()
	if table == nil {
		return enrolment{status: rangesUnknown}
	}
	found := enrolment{status: outsideRanges}
	_ = card.RevealPAN(func(digits []byte) error { found = table.lookUp(digits); return nil })
	return found
}

func (t *rangeTable) lookUp(digits []byte) enrolment {
	n := len(digits)
	i := sort.Search(len(t.ranges), func(i int) bool { return bytes.Compare(t.ranges[i].end[:n], digits) >= 0 })
	if i == len(t.ranges) || bytes.Compare(t.ranges[i].start[:n], digits) > 0 {
		return enrolment{status: outsideRanges}
	}
	if !t.ranges[i].speaks {
		return enrolment{status: otherVersion}
	}
	return enrolment{status: insideRanges, method: t.ranges[i].method}
}

// Run refreshes the card ranges until ctx ends: every [Timeouts.Refresh], and with growing pauses, from one second
// to five minutes, while that fails.
func (s *Server) Run(ctx context.Context) {
	const shortest, longest = time.Second, 5 * time.Minute
	backOff := shortest
	for {
		pause := s.cfg.Timeouts.Refresh
		if err := s.Refresh(ctx); err != nil && ctx.Err() == nil {
			slog.ErrorContext(ctx, "the card ranges of the directory server could not be refreshed",
				"error", err, "again_in", backOff)
			pause = backOff/2 + rand.N(backOff/2+1) // machines that start together must not ask together
			backOff = min(2*backOff, longest)
		} else {
			backOff = shortest
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Refresh asks the directory server for its card ranges, or for what changed since the last answer (section 5.6).
// On error the ranges stay as they were.
func (s *Server) Refresh(ctx context.Context) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Ranges)
	defer cancel()

	known := s.ranges.Load()
	next, err := s.fetchRanges(ctx, known)
	var erro *ErroError
	if known != nil && (errors.Is(err, errDelta) || errors.As(err, &erro) && erro.Code == string(codeSerialNumber)) {
		next, err = s.fetchRanges(ctx, nil)
	}
	if err != nil {
		return fmt.Errorf("threeds: refresh card ranges: %w", err)
	}
	s.ranges.Store(next)
	return nil
}

func (s *Server) fetchRanges(ctx context.Context, known *rangeTable) (*rangeTable, error) {
	ask := preq{
		MessageType: messagePReq, MessageVersion: MessageVersion,
		ThreeDSServerRefNumber:  s.cfg.ServerRefNumber,
		ThreeDSServerOperatorID: s.cfg.OperatorID,
		ThreeDSServerTransID:    newTransID(),
	}
	if known != nil {
		ask.SerialNum = known.serial
	}
	raw, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	resp, err := s.send(ctx, io.NopCloser(bytes.NewReader(raw)), int64(len(raw)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := readAtMost(resp.Body, maxRanges)
	if err != nil {
		return nil, err
	}
	next, ids, err := parsePRes(answer, ask.ThreeDSServerTransID, known)
	if err != nil {
		s.reportFault(ctx, err, messagePRes, ids)
	}
	return next, err
}

func readAtMost(body io.Reader, limit int64) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, &sendError{cause: err}
	}
	if int64(len(answer)) > limit {
		return nil, errLong
	}
	return answer, nil
}

// parsePRes reads the answer to the PReq with the given threeDSServerTransID. known is nil when that had no
// serialNum; else the answer is the difference to known.
func parsePRes(raw []byte, serverTransID string, known *rangeTable) (*rangeTable, identifiers, error) {
	var p pres
	if err := decode(raw, &p); err != nil {
		return nil, identifiers{}, err
	}
	switch p.MessageType {
	case messagePRes:
	case messageErro:
		return nil, identifiers{}, readErro(raw)
	default:
		return nil, identifiers{}, &fault{code: codeMessage, detail: "messageType"}
	}
	ids := identifiers{ThreeDSServerTransID: p.ThreeDSServerTransID, DSTransID: p.DSTransID}
	if err := p.check(serverTransID); err != nil {
		return nil, ids, err
	}
	table, err := p.apply(known)
	return table, ids, err
}

func (p *pres) check(serverTransID string) error {
	if p.MessageVersion != MessageVersion {
		return &fault{code: codeVersion, detail: "messageVersion"}
	}
	var f elementCheck
	f.want("threeDSServerTransID", p.ThreeDSServerTransID, isTransID(p.ThreeDSServerTransID))
	f.want("dsTransID", p.DSTransID, isTransID(p.DSTransID))
	f.allow("serialNum", p.SerialNum, between(p.SerialNum, 1, 20))
	if err := f.fault(); err != nil {
		return err
	}
	if p.ThreeDSServerTransID != serverTransID {
		return &fault{code: codeUnknownID, detail: "threeDSServerTransID"}
	}
	if hasCritical(p.MessageExtension) {
		return &fault{code: codeCriticalExtension, detail: "messageExtension"}
	}
	return nil
}

// errDelta is a difference that does not fit the ranges it was made for: the whole is asked for again.
var errDelta = errors.New("threeds: the directory server's changes do not fit its earlier ranges")

type bounds struct{ start, end [pan.MaxLength]byte }

// apply returns the ranges after p. Without known, every element is an addition, whatever its actionInd says.
func (p *pres) apply(known *rangeTable) (*rangeTable, error) {
	table := make(map[bounds]cardRange)
	serial := p.SerialNum
	if known != nil {
		if len(p.CardRangeData) == 0 && (serial == "" || serial == known.serial) {
			return known, nil // the usual answer: nothing has changed
		}
		for _, r := range known.ranges {
			table[bounds{r.start, r.end}] = r
		}
		if serial == "" {
			serial = known.serial
		}
	}
	for _, data := range p.CardRangeData {
		r, err := data.parse()
		if err != nil {
			return nil, err
		}
		key := bounds{r.start, r.end}
		_, there := table[key]
		switch {
		case known == nil || data.ActionInd == "" || data.ActionInd == "A":
			table[key] = r
		case !there:
			return nil, errDelta
		case data.ActionInd == "D":
			delete(table, key)
		default:
			table[key] = r
		}
	}
	sorted, err := sortRanges(table)
	if err != nil && known != nil {
		return nil, errors.Join(errDelta, err)
	}
	if err != nil {
		return nil, err
	}
	return &rangeTable{serial: serial, ranges: sorted}, nil
}

// sortRanges refuses overlaps (section 5.6): a card must not have two ranges.
func sortRanges(table map[bounds]cardRange) ([]cardRange, error) {
	sorted := make([]cardRange, 0, len(table))
	for _, r := range table {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b cardRange) int { return bytes.Compare(a.start[:], b.start[:]) })
	for i := 1; i < len(sorted); i++ {
		if bytes.Compare(sorted[i-1].end[:], sorted[i].start[:]) >= 0 {
			return nil, &fault{code: codeFormat, detail: "cardRangeData: overlapping ranges"}
		}
	}
	return sorted, nil
}

func (d *cardRangeData) parse() (cardRange, error) {
	var f elementCheck
	f.want("startRange", d.StartRange, isDigits(d.StartRange, 13, pan.MaxLength))
	f.want("endRange", d.EndRange, isDigits(d.EndRange, 13, pan.MaxLength) && len(d.EndRange) == len(d.StartRange) && d.StartRange <= d.EndRange)
	f.want("acsStartProtocolVersion", d.ACSStartProtocolVersion, isVersion(d.ACSStartProtocolVersion))
	f.want("acsEndProtocolVersion", d.ACSEndProtocolVersion, isVersion(d.ACSEndProtocolVersion))
	f.allow("actionInd", d.ActionInd, d.ActionInd == "A" || d.ActionInd == "M" || d.ActionInd == "D")
	f.allow("threeDSMethodURL", d.ThreeDSMethodURL, len(d.ThreeDSMethodURL) <= 256)
	if err := f.fault(); err != nil {
		return cardRange{}, err
	}
	r := cardRange{
		speaks: d.ACSStartProtocolVersion <= MessageVersion && MessageVersion <= d.ACSEndProtocolVersion,
		method: unique.Make(d.ThreeDSMethodURL).Value(), // an ACS has thousands of ranges
	}
	copy(r.start[:], d.StartRange+strings.Repeat("0", pan.MaxLength-len(d.StartRange)))
	copy(r.end[:], d.EndRange+strings.Repeat("9", pan.MaxLength-len(d.EndRange)))
	return r, nil
}

// isVersion reports whether s is three single digits with dots, so that versions compare as strings.
func isVersion(s string) bool {
	return len(s) == 5 && s[1] == '.' && s[3] == '.' && isDigits(s[:1]+s[2:3]+s[4:], 3, 3)
}
