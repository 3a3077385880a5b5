package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/finterra/finpay/pci"
)

// maxBody is the longest JSON body, in bytes.
const maxBody = 64 << 10

// maxPointer is the longest pointer that is repeated to a caller, in bytes.
const maxPointer = 256

// seenBody knows whether it was read to its end.
type seenBody struct {
	io.ReadCloser
	ended bool
}

// Read implements [io.Reader].
func (b *seenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// leaveUnread sees to it, before the answer, that a body which nobody wants is left nowhere: it may be a card's, and the server
// would read it into memory of its own to get at the next request.
func (s *server) leaveUnread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.ProtoMajor != 1 {
		return
	}
	w.Header().Set("Connection", "close")
	s.cfg.Wipe(r.Context(), nil)
}

// readJSON reads a request's body into v, strictly: one JSON text in UTF-8 (RFC 8259, with the restrictions of
// RFC 7493 on names), no member that v lacks, no null. Its errors name the place, never what stands there.
func (s *server) readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if err := isJSON(r.Header); err != nil {
		return err
	}
	buffer := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), maxBody)+bytes.MinRead)) // grows where no length was said
	_, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	body := buffer.Bytes()
	defer func() {
		s.cfg.Wipe(r.Context(), body) // a card may be in it that has no business there
		clear(body)
	}()
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return ErrTooLarge.With("A body has at most %d bytes.", maxBody)
	}
	if err != nil {
		return ErrMalformed.With("The body ends early.")
	}
	if err := refuseNull(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return jsonProblem(err)
	}
	return nil
}

func isJSON(h http.Header) error {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || len(h.Values("Content-Type")) != 1 {
		return ErrMediaType
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return ErrMediaType.With("Send JSON in UTF-8.")
	}
	if h.Get("Content-Encoding") != "" {
		return ErrMediaType.With("Send the body without a Content-Encoding.")
	}
	return nil
}

// refuseNull finds nulls, which decoding would take for a field that was left out.
func refuseNull(body []byte) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		token, err := decoder.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return jsonProblem(err)
		}
		if token.Kind() == 'n' {
			return at(ErrInvalid.With("No field takes null. Leave the field out."), decoder.StackPointer())
		}
	}
}

// jsonProblem says what is wrong with a body.
func jsonProblem(err error) *Problem {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		if errors.Is(e.Err, json.ErrUnknownName) {
			return at(ErrUnknownField, e.JSONPointer)
		}
		return at(ErrInvalid.With("%s", wanted(e.GoType)), e.JSONPointer)
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return at(ErrMalformed.With("A name stands twice in one object."), e.JSONPointer)
		}
		return at(ErrMalformed.With("The body is not one JSON object in UTF-8: it goes wrong at byte %d.", e.ByteOffset), e.JSONPointer)
	}
	return ErrMalformed
}

// wanted says what a field takes.
func wanted(t reflect.Type) string {
	if t == nil {
		return ErrInvalid.Detail
	}
	switch t.Kind() {
	case reflect.Int64:
		return "Send an integer in minor units: digits only, without fraction or exponent."
	case reflect.String:
		return "Send a string."
	case reflect.Struct, reflect.Pointer:
		return "Send an object."
	}
	return ErrInvalid.Detail
}

// at adds a pointer to a problem, unless the names in it are such that they must not be repeated.
func at(p *Problem, pointer jsontext.Pointer) *Problem {
	switch {
	case pci.LooksLikePAN(string(pointer)):
		return ErrCardNumber
	case len(pointer) > maxPointer:
		return p
	}
	return p.At(string(pointer))
}

// readQuery returns the query's parameters, each of which must be in known and stand there once.
func readQuery(r *http.Request, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, ErrMalformed.With("The query cannot be read.")
	}
	query := make(map[string]string, len(known))
	for _, name := range known {
		if len(values[name]) > 1 {
			return nil, ErrInvalid.With("The query parameter %s stands there more than once.", name)
		}
		if values.Has(name) {
			query[name] = values.Get(name)
		}
		delete(values, name)
	}
	if len(values) > 0 {
		return nil, ErrUnknownField.With("The query parameters of this route are: %s.", strings.Join(known, ", "))
	}
	return query, nil
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return nil
}
