// Package iso8583 packs and parses financial transaction messages (ISO 8583:1987 and ISO 8583:1993).
//
// A [Spec] is data: how the type, the bitmaps, lengths and each kind of field are written. A [Writer] packs a
// message into the caller's buffer; [Parse] finds the fields of a message where they lie; [Header] frames
// messages on a stream. Four specs are here, [ASCII1987], [Binary1987], [ASCII1993] and [Binary1993]; an acquirer's
// own dialect is a copy of one with some fields changed. [ResponseCode] and [ActionCode] say in one edition what a DE 39
// of the other means.
//
// # What is promised
//
// Neither side allocates (with [Message.Parse], a reader does not either) or copies field contents: a message that carries a card stays in the memory in which
// the caller put it. An [Error] names a field and a rule and never quotes content. A [Message] prints as its type,
// trace number, retrieval reference and response code, whatever the verb.
//
// Parsing is strict: an undefined field, a character outside its field's class, a length beyond its field's
// maximum, bytes after the last field are refused. What is accepted packs again to the same bytes.
//
// # What is not
//
// The meaning of fields is not checked (dates, check digits, which fields a message type needs), nor is a MAC
// (DE 64, 128). A third bitmap (DE 65) is refused: no field of these editions is beyond DE 128.
package iso8583

import "fmt"

// Error says which part of a message breaks which rule. It never carries content.
type Error struct {
	Field  int    // number of the data element, 0 when the fault is not in one
	Part   string // what is at fault when Field is 0: "MTI", "bitmap", "message"
	Reason string
}

func (e *Error) Error() string {
	if e.Field == 0 {
		return fmt.Sprintf("iso8583: %s: %s", e.Part, e.Reason)
	}
	return fmt.Sprintf("iso8583: DE %d: %s", e.Field, e.Reason)
}

func fieldError(de int, format string, args ...any) error {
	return &Error{Field: de, Reason: fmt.Sprintf(format, args...)}
}

func partError(part, format string, args ...any) error {
	return &Error{Part: part, Reason: fmt.Sprintf(format, args...)}
}
