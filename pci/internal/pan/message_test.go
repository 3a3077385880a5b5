package pan

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAMessageIsWipedAndItsBodyEndsWithIt(t *testing.T) {
	m, err := NewMessage()
	if err != nil {
		t.Fatal(err)
	}
	card := newCard(t, amex, "1234")
	m.Append([]byte("number="))
	m.AppendPAN(card)
	m.Append([]byte("&cvc="))
	m.AppendCVV(card)
	body, memory := m.Body(), m.slot.Bytes()
	var sent strings.Builder
	if _, err := m.Body().(io.WriterTo).WriteTo(&sent); err != nil || sent.String() != "number="+amex+"&cvc=1234" || sent.Len() != m.Len() {
		t.Errorf("%q, %v", sent.String(), err)
	}
	m.Wipe()
	for _, b := range memory {
		if b != 0 {
			t.Fatal("the slot is not wiped")
		}
	}
	// net/http may go on reading after it gave up; by then the slot may hold another card.
	if _, err := body.Read(make([]byte, 16)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read after wipe: %v", err)
	}
	if _, err := body.(io.WriterTo).WriteTo(io.Discard); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write after wipe: %v", err)
	}
}

func TestAnEchoedNumberIsMasked(t *testing.T) {
	m, err := NewMessage()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Wipe()
	untouched := []byte("nothing to hide")
	m.Mask(untouched)
	m.AppendPAN(newCard(t, amex, ""))
	answer := []byte(amex + ":" + amex + amex + ".")
	m.Mask(answer)
	stars := strings.Repeat("*", len(amex))
	if want := stars + ":" + stars + stars + "."; string(answer) != want || string(untouched) != "nothing to hide" {
		t.Errorf("%s, want %s", answer, want)
	}
}

func TestAMessageThatDoesNotFitFailsAsAWhole(t *testing.T) {
	m, err := NewMessage()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Wipe()
	m.Append(make([]byte, slotSize-10))
	if m.Err() != nil {
		t.Fatal(m.Err())
	}
	m.AppendPAN(newCard(t, amex, ""))
	m.Append([]byte("x")) // which would fit
	if !errors.Is(m.Err(), ErrTooLong) || m.Len() != slotSize-10 {
		t.Errorf("%v at %d bytes", m.Err(), m.Len())
	}
}
