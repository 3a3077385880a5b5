package threeds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
)

// Results is told how a challenge ended.
type Results interface {
	// ChallengeDone records the verdict of the challenge that was opened for payment. Only when it returns nil is
	// the directory server told that the result has arrived; it repeats the result otherwise. It is called
	// again after an error, and never after it returned nil.
	ChallengeDone(ctx context.Context, payment string, result pci.Authentication) error
}

// rreq is a Results Request (table B.8), as far as the browser channel needs it. It has no slice, so that two can
// be compared.
type rreq struct {
	header
	identifiers
	status
	InteractionCounter string `json:"interactionCounter"`
	MessageCategory    string `json:"messageCategory"`
	ChallengeCancel    string `json:"challengeCancel"`
}

// rres is a Results Response (table B.9).
type rres struct {
	ThreeDSServerTransID string `json:"threeDSServerTransID"`
	DSTransID            string `json:"dsTransID"`
	ACSTransID           string `json:"acsTransID"`
	MessageType          string `json:"messageType"`
	MessageVersion       string `json:"messageVersion"`
	ResultsStatus        string `json:"resultsStatus"`
}

// errUndelivered is a result that the payment could not take now.
var errUndelivered = errors.New("the result could not be recorded")

// ResultsHandler serves the directory server's RReq messages. It belongs on a listener of its own that verifies
// client certificates against the CA of the directory server and of nobody else: the handler itself checks only
// that one was verified. Errors are answered with HTTP 200 and an Erro, as section 5.9 asks.
func (s *Server) ResultsHandler(results Results) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a client certificate is required", http.StatusForbidden)
			return
		}
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "only POST", http.StatusMethodNotAllowed)
			return
		}
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
			http.Error(w, "only application/json", http.StatusUnsupportedMediaType)
			return
		}
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAnswer))
		if err != nil {
			http.Error(w, "the message cannot be read", http.StatusRequestEntityTooLarge)
			return
		}
		writeJSON(w, s.takeResult(r.Context(), results, raw))
	})
}

// takeResult returns the RRes or Erro for an RReq.
func (s *Server) takeResult(ctx context.Context, results Results, raw []byte) any {
	request, err := parseRReq(raw)
	v := versionOf(request.MessageVersion)
	open, found := s.challenges.find(request.identifiers)
	if found {
		v = open.version
	}
	if !s.versions.has(v) {
		v = s.versions.newest()
	}
	if err == nil {
		err = s.versions.checkVersion(request.MessageVersion, v)
	}
	if err == nil {
		err = s.decide(ctx, results, request, open)
	}
	if err != nil {
		var f *fault
		if !errors.As(err, &f) { // an Erro in place of an RReq is noted, not answered in kind
			f = &fault{code: codeMessage, detail: "messageType"}
		}
		slog.ErrorContext(ctx, "an RReq was refused", "error", err)
		return f.message(messageRReq, request.identifiers, v)
	}
	return rres{
		ThreeDSServerTransID: request.ThreeDSServerTransID,
		DSTransID:            request.DSTransID,
		ACSTransID:           request.ACSTransID,
		MessageType:          messageRRes,
		MessageVersion:       v.String(),
		ResultsStatus:        "01", // received for further processing
	}
}

// decide hands the result of an open challenge, nil for none, to the payment, once.
func (s *Server) decide(ctx context.Context, results Results, request rreq, open *challenge) error {
	if open == nil {
		return &fault{code: codeUnknownID, detail: "threeDSServerTransID,dsTransID,acsTransID"}
	}
	open.deciding.Lock()
	defer open.deciding.Unlock()
	if open.decided != nil {
		if *open.decided != request {
			again := &fault{code: codeUnknownID, detail: "the challenge has another result already"}
			if open.version >= v231 {
				again.code = codeSecondResult
			}
			return again
		}
		return nil
	}
	auth := verdict(ctx, open.payment, request.header, request.identifiers, request.status)
	if err := results.ChallengeDone(ctx, open.payment, auth); err != nil {
		slog.ErrorContext(ctx, "the result of a challenge could not be recorded", "payment", open.payment, "error", err)
		return &fault{code: codeTransient, detail: "try again", cause: errUndelivered}
	}
	open.decided = &request
	return nil
}

// parseRReq reads an RReq. An error is a [*fault] or an [*ErroError].
func parseRReq(raw []byte) (rreq, error) {
	var message struct {
		rreq
		MessageExtension []extension `json:"messageExtension"`
	}
	if err := decode(raw, &message); err != nil {
		return rreq{}, err
	}
	r := message.rreq
	switch r.MessageType {
	case messageRReq:
	case messageErro:
		return r, readErro(raw)
	default:
		return r, &fault{code: codeMessage, detail: "messageType"}
	}
	if versionOf(r.MessageVersion) == noVersion {
		return r, &fault{code: codeVersion, detail: "messageVersion"}
	}
	if err := r.check(); err != nil {
		return r, err
	}
	if hasCritical(message.MessageExtension) {
		return r, &fault{code: codeCriticalExtension, detail: "messageExtension"}
	}
	return r, nil
}

func (r *rreq) check() error {
	var f elementCheck
	f.want("threeDSServerTransID", r.ThreeDSServerTransID, isTransID(r.ThreeDSServerTransID))
	f.want("dsTransID", r.DSTransID, isTransID(r.DSTransID))
	f.want("acsTransID", r.ACSTransID, isTransID(r.ACSTransID))
	f.want("interactionCounter", r.InteractionCounter, isDigits(r.InteractionCounter, 2, 2))
	f.want("messageCategory", r.MessageCategory, r.MessageCategory == "01")
	// After a challenge there is a verdict: no second challenge (C, S), no decoupling (D), no information only (I).
	f.want("transStatus", r.TransStatus, len(r.TransStatus) == 1 && strings.Contains("YANRU", r.TransStatus))
	f.allow("transStatusReason", r.TransStatusReason, isDigits(r.TransStatusReason, 2, 2))
	f.allow("challengeCancel", r.ChallengeCancel, isDigits(r.ChallengeCancel, 2, 2))
	f.allow("eci", r.ECI, isDigits(r.ECI, 1, 2))
	return f.fault()
}

func writeJSON(w http.ResponseWriter, message any) {
	raw, err := json.Marshal(message)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	_, _ = w.Write(raw)
}
