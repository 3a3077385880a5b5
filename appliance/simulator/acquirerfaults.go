package simulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// BehaveHandler changes what goes wrong at the acquirer: GET and POST of a [Behaviour], from this machine alone.
func (h *AcquirerHost) BehaveHandler() http.Handler { return &h.behaviour }

// aboutMoney are the faults that strike requests which are not network management, and those that strike echo tests.
var (
	aboutMoney = slices.DeleteFunc(slices.Clone(acquirerFaults), func(f Fault) bool { return f == NoEcho || f == Refusing })
	aboutLine  = []Fault{NoEcho}
)

// struckBy returns what the fault of the hour makes of a request: it gets lost, or its reply is spoiled; nil where it is not.
func (h *AcquirerHost) struckBy(request *iso8583.Message) (lost bool, spoil func(*reply)) {
	among := aboutMoney
	if request.MTI()[1] == '8' {
		if !isEcho(request) {
			return false, nil
		}
		among = aboutLine
	}
	b := h.behaviour.struck(among...)
	switch b.Fault {
	case Deaf, NoEcho:
		return true, nil
	case Slow:
		return false, func(r *reply) { r.after = b.after() }
	case TooLate:
		return false, func(r *reply) { r.after = h.options.LateAfter }
	case Mute:
		return false, func(r *reply) { r.times = 0 }
	case AnswersTwice:
		return false, func(r *reply) { r.times *= 2 }
	case HalfFrame:
		return false, func(r *reply) { r.mangle = halve }
	case GarbledLength:
		return false, func(r *reply) { r.mangle = noLength }
	case WrongLength:
		return false, func(r *reply) { r.mangle = tooLong }
	case GarbledMessage:
		return false, func(r *reply) { r.mangle = noMessage }
	case OtherSTAN:
		return false, func(r *reply) { r.instead = map[int]string{11: otherDigits(request.Text(11))} }
	case OtherAmount:
		amount, _ := request.Uint(4)
		return false, func(r *reply) { r.instead = map[int]string{4: fmt.Sprintf("%012d", amount+1)} }
	case OtherCurrency:
		return false, func(r *reply) { r.instead = map[int]string{49: "036", 50: "036"} }
	}
	return false, nil
}

func isEcho(request *iso8583.Message) bool {
	if of1993(request) {
		return request.Text(24) == "831"
	}
	return request.Text(70) == "301"
}

// otherDigits are as many digits, and others.
func otherDigits(text string) string {
	other := []byte(text)
	for i, c := range other {
		other[i] = '9' - (c - '0')
	}
	return string(other)
}

func halve(_ iso8583.Header, frame []byte) ([]byte, bool) { return frame[:len(frame)/2], false }

// noLength makes the header one that no form of header knows.
func noLength(header iso8583.Header, frame []byte) ([]byte, bool) {
	for i := range header.Size() {
		frame[i] = 0xFF
	}
	return frame, true
}

// tooLong makes the header that of a longer message.
func tooLong(header iso8583.Header, frame []byte) ([]byte, bool) {
	longer := make([]byte, len(frame)+100)
	if err := header.Put(longer); err == nil {
		copy(frame, longer[:header.Size()])
	}
	return frame, true
}

// noMessage makes the first character of the type one that is no digit.
func noMessage(header iso8583.Header, frame []byte) ([]byte, bool) {
	frame[header.Size()] = 0xFF
	return frame, true
}

// reopen waits until the host does not refuse connections any more, and listens again.
func (h *AcquirerHost) reopen(ctx context.Context, address string) (net.Listener, error) {
	h.behaviour.await(ctx, func(f Fault) bool { return f != Refusing })
	for {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) { // which a connection of somebody else may be, for a moment
			return listener, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
