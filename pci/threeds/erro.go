package threeds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// errorCode is a code of table A.4 (errorCode).
type errorCode string

// Error codes in use.
const (
	codeMessage           errorCode = "101" // the message is not one for its recipient
	codeVersion           errorCode = "102"
	codeMissing           errorCode = "201"
	codeCriticalExtension errorCode = "202"
	codeFormat            errorCode = "203"
	codeDuplicate         errorCode = "204"
	codeUnknownID         errorCode = "301"
	codeSerialNumber      errorCode = "307"
	codeSecondResult      errorCode = "312" // since 2.3.1; 301 before
	codeTransient         errorCode = "403"
)

var descriptions = map[errorCode]string{
	codeMessage:           "Message received invalid",
	codeVersion:           "Message version number not supported",
	codeMissing:           "Required data element missing",
	codeCriticalExtension: "Critical message extension not recognised",
	codeFormat:            "Format of one or more data elements is invalid",
	codeDuplicate:         "Duplicate data element",
	codeUnknownID:         "Transaction ID not recognised",
	codeSecondResult:      "Results Request received more than once",
	codeTransient:         "Transient system failure",
}

// fault is what is wrong with a message that was received. Its detail names elements and never quotes them.
type fault struct {
	code   errorCode
	detail string
	cause  error
}

func (f *fault) Error() string {
	return fmt.Sprintf("error %s (%s): %s", f.code, descriptions[f.code], f.detail)
}

func (f *fault) Unwrap() error { return f.cause }

// ErroError is an error message of the directory server.
type ErroError struct {
	Code      string // errorCode, three digits
	Component string // errorComponent: S, D or A
	Detail    string // errorDetail, with digits replaced
}

func (e *ErroError) Error() string {
	return fmt.Sprintf("threeds: the directory server answered with error %s of component %s: %s", e.Code, e.Component, e.Detail)
}

// erro is an error message (table B.10).
type erro struct {
	ThreeDSServerTransID string `json:"threeDSServerTransID,omitempty"`
	DSTransID            string `json:"dsTransID,omitempty"`
	ACSTransID           string `json:"acsTransID,omitempty"`
	ErrorCode            string `json:"errorCode"`
	ErrorComponent       string `json:"errorComponent"`
	ErrorDescription     string `json:"errorDescription"`
	ErrorDetail          string `json:"errorDetail"`
	ErrorMessageType     string `json:"errorMessageType,omitempty"`
	MessageType          string `json:"messageType"`
	MessageVersion       string `json:"messageVersion"`
}

func (f *fault) message(about string, ids identifiers, v version) erro {
	known := func(id string) string {
		if isTransID(id) {
			return id
		}
		return ""
	}
	return erro{
		ThreeDSServerTransID: known(ids.ThreeDSServerTransID),
		DSTransID:            known(ids.DSTransID),
		ACSTransID:           known(ids.ACSTransID),
		ErrorCode:            string(f.code),
		ErrorComponent:       "S",
		ErrorDescription:     descriptions[f.code],
		ErrorDetail:          f.detail,
		ErrorMessageType:     about,
		MessageType:          messageErro,
		MessageVersion:       v.String(),
	}
}

// readErro reads the error message in raw, whose type is already known.
func readErro(raw []byte) error {
	var e erro
	if err := decode(raw, &e); err != nil {
		return err
	}
	return &ErroError{Code: withoutDigits(e.ErrorCode, 3, 3), Component: withoutDigits(e.ErrorComponent, 1, 1), Detail: withoutDigits(e.ErrorDetail, 256, 2)}
}

// withoutDigits returns at most max printable characters of foreign text, without any run of more than keep digits. A security
// code has three.
func withoutDigits(s string, max, keep int) string {
	s = printable(s, max)
	var b strings.Builder
	for len(s) > 0 {
		run := len(s) - len(strings.TrimLeft(s, "0123456789"))
		if run == 0 {
			run = strings.IndexAny(s, "0123456789")
			if run < 0 {
				run = len(s)
			}
			b.WriteString(s[:run])
		} else if run > keep {
			b.WriteString("***")
		} else {
			b.WriteString(s[:run])
		}
		s = s[run:]
	}
	return b.String()
}

// elementCheck collects the elements at fault. Missing ones count before malformed ones.
type elementCheck struct{ missing, malformed []string }

func (c *elementCheck) want(element, value string, ok bool) {
	if value == "" {
		c.missing = append(c.missing, element)
	} else if !ok {
		c.malformed = append(c.malformed, element)
	}
}

func (c *elementCheck) allow(element, value string, ok bool) {
	if value != "" && !ok {
		c.malformed = append(c.malformed, element)
	}
}

func (c *elementCheck) fault() error {
	switch {
	case c.missing != nil:
		return &fault{code: codeMissing, detail: strings.Join(c.missing, ",")}
	case c.malformed != nil:
		return &fault{code: codeFormat, detail: strings.Join(c.malformed, ",")}
	}
	return nil
}

// decode reads one JSON value. Duplicate names and invalid UTF-8 are refused, unknown names are kept out. The
// decoder's own errors are not passed on: they quote the message.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName):
		return &fault{code: codeDuplicate, detail: "a name stands twice"}
	default:
		return &fault{code: codeFormat, detail: "not the JSON of this message"}
	}
}

// errStatus is an HTTP status other than 200, errLong an answer past its bound.
var (
	errStatus = errors.New("threeds: HTTP status")
	errLong   = errors.New("threeds: the answer is too long")
)

// sendError says why an exchange failed. net/http quotes what it received, so the text is kept free of digits.
type sendError struct{ cause error }

func (e *sendError) Error() string { return withoutDigits(e.cause.Error(), 256, 2) }
func (e *sendError) Unwrap() error { return e.cause }

// post sends body to the directory server and reads the answer into answer.
func (s *Server) post(ctx context.Context, body io.ReadCloser, length int64, answer []byte) (int, error) {
	resp, err := s.send(ctx, body, length)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.ReadFull(resp.Body, answer)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return n, nil
	case err != nil:
		return n, &sendError{cause: err}
	default:
		return n, errLong
	}
}

// send returns a response with status 200, whose body the caller closes.
func (s *Server) send(ctx context.Context, body io.ReadCloser, length int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.DirectoryServer, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	req.Header.Set("Content-Type", "application/json; charset=utf-8") // section 5.1.1
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, &sendError{cause: err}
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w %d", errStatus, resp.StatusCode)
	}
	return resp, nil
}

// reportTimeout bounds an Erro to the directory server: the shopper is waiting meanwhile.
const reportTimeout = 2 * time.Second

// reportFault tells the directory server what was wrong with its answer (section 5.9). An Erro is not answered
// with another one, and nobody depends on its arrival.
func (s *Server) reportFault(ctx context.Context, err error, about string, ids identifiers, v version) {
	var f *fault
	if !errors.As(err, &f) {
		return
	}
	raw, err := json.Marshal(f.message(about, ids, v))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	resp, err := s.send(ctx, io.NopCloser(bytes.NewReader(raw)), int64(len(raw)))
	if err != nil {
		slog.WarnContext(ctx, "an error message could not be sent to the directory server", "error", err)
		return
	}
	_ = resp.Body.Close()
}
