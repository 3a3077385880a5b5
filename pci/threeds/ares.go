package threeds

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
)

// maxAnswer bounds an ARes, an RReq and an Erro.
const maxAnswer = 64 << 10

// Message types.
const (
	messageAReq = "AReq"
	messageARes = "ARes"
	messageCReq = "CReq"
	messageCRes = "CRes"
	messageErro = "Erro"
	messagePReq = "PReq"
	messagePRes = "PRes"
	messageRReq = "RReq"
	messageRRes = "RRes"
)

// header stands in every message.
type header struct {
	MessageType    string `json:"messageType"`
	MessageVersion string `json:"messageVersion"`
}

// identifiers name one authentication to its three parties.
type identifiers struct {
	ThreeDSServerTransID string `json:"threeDSServerTransID"`
	DSTransID            string `json:"dsTransID"`
	ACSTransID           string `json:"acsTransID"`
}

// status is what ARes and RReq share. The elements are optional here: what is required differs.
type status struct {
	TransStatus         string `json:"transStatus"`
	TransStatusReason   string `json:"transStatusReason"`
	AuthenticationValue string `json:"authenticationValue"`
	ECI                 string `json:"eci"`
}

// extension is an element of messageExtension. Its data is not kept: none is known here.
type extension struct {
	CriticalityIndicator bool `json:"criticalityIndicator"`
}

// ares is an Authentication Response (table B.2), as far as the browser channel needs it.
type ares struct {
	header
	identifiers
	status
	ACSChallengeMandated string      `json:"acsChallengeMandated"`
	ACSReferenceNumber   string      `json:"acsReferenceNumber"`
	ACSURL               string      `json:"acsURL"`
	AuthenticationType   string      `json:"authenticationType"`
	DSReferenceNumber    string      `json:"dsReferenceNumber"`
	MessageExtension     []extension `json:"messageExtension"`
}

// refuses reports whether an ARes that is not usable says no all the same: its transStatus is one that lets nobody
// through, or one that is not known or was not asked for. Whatever else is wrong with it, it must not count as silence, after
// which a payment may go on without 3-D Secure.
func refuses(raw []byte) bool {
	var message struct {
		TransStatus string `json:"transStatus"`
	}
	if err := json.Unmarshal(raw, &message); err != nil || message.TransStatus == "" {
		return false
	}
	outcome, known := outcomes[message.TransStatus]
	return !known || outcome == pci.AuthenticationNo
}

// parseARes reads the answer to the AReq with the given threeDSServerTransID and version. An error is a [*fault] or an
// [*ErroError]; the ares returned with it has what identifiers could be read.
func (s versionSet) parseARes(raw []byte, serverTransID string, v version) (ares, error) {
	var a ares
	if err := decode(raw, &a); err != nil {
		return ares{}, err
	}
	switch a.MessageType {
	case messageARes:
	case messageErro:
		return ares{}, readErro(raw)
	default:
		return ares{}, &fault{code: codeMessage, detail: "messageType"}
	}
	if err := s.checkVersion(a.MessageVersion, v); err != nil {
		return a, err
	}
	return a, a.check(serverTransID, v)
}

func (a *ares) check(serverTransID string, v version) error {
	var f elementCheck
	f.want("threeDSServerTransID", a.ThreeDSServerTransID, isTransID(a.ThreeDSServerTransID))
	f.want("dsTransID", a.DSTransID, isTransID(a.DSTransID))
	f.want("acsTransID", a.ACSTransID, isTransID(a.ACSTransID))
	f.want("dsReferenceNumber", a.DSReferenceNumber, between(a.DSReferenceNumber, 1, 32))
	f.want("acsReferenceNumber", a.ACSReferenceNumber, between(a.ACSReferenceNumber, 1, 32))
	f.want("transStatus", a.TransStatus, len(a.TransStatus) == 1)
	f.allow("transStatusReason", a.TransStatusReason, isDigits(a.TransStatusReason, 2, 2))
	f.allow("eci", a.ECI, isDigits(a.ECI, 1, 2))
	if a.TransStatus == "C" {
		f.want("acsURL", a.ACSURL, len(a.ACSURL) <= 2048)
		f.want("acsChallengeMandated", a.ACSChallengeMandated, a.ACSChallengeMandated == "Y" || a.ACSChallengeMandated == "N")
		if v == v220 { // 2.3.1 knows it as authenticationMethod, and wants it with a result
			f.want("authenticationType", a.AuthenticationType, isDigits(a.AuthenticationType, 2, 2))
		}
	}
	if err := f.fault(); err != nil {
		return err
	}
	if a.ThreeDSServerTransID != serverTransID {
		return &fault{code: codeUnknownID, detail: "threeDSServerTransID"}
	}
	if hasCritical(a.MessageExtension) {
		return &fault{code: codeCriticalExtension, detail: "messageExtension"}
	}
	switch a.TransStatus {
	case "Y", "A", "C", "N", "R", "U", "I":
		return nil
	}
	// D answers threeDSRequestorDecReqInd Y and S threeDSRequestorSpcSupport Y, neither of which is sent.
	return &fault{code: codeFormat, detail: "transStatus"}
}

func hasCritical(extensions []extension) bool {
	for _, e := range extensions {
		if e.CriticalityIndicator {
			return true
		}
	}
	return false
}

// outcomes maps transStatus (table A.1). What D, S and I are is said where they are told apart; a message that is not usable
// for another reason is no authentication with any of them.
var outcomes = map[string]pci.AuthenticationOutcome{
	"Y": pci.Authenticated,
	"A": pci.AuthenticationTried,
	"C": pci.ChallengeRequired,
	"N": pci.AuthenticationNo,
	"R": pci.AuthenticationNo,
	"U": pci.AuthenticationDown,
	"D": pci.AuthenticationNo,
	"S": pci.AuthenticationNo,
	"I": pci.AuthenticationNo,
}

// verdict maps an ARes. I says that the issuer has taken notice of a wish for no challenge: where that was not wished, nobody
// has looked at the cardholder, as with U. Neither has an ECI or a proof to claim.
func (a *ares) verdict(ctx context.Context, payment string, exempt bool) pci.Authentication {
	auth := verdict(ctx, payment, a.header, a.identifiers, a.status)
	if a.TransStatus == "I" {
		auth.ECI, auth.Outcome = "", pci.AuthenticationDown
		if exempt {
			auth.Outcome = pci.NotChallenged
		}
	}
	return auth
}

// verdict turns the status of an ARes or RReq into an outcome. Y and A without a proof of 20 bytes are refused:
// an acquirer would have nothing to show.
func verdict(ctx context.Context, payment string, h header, ids identifiers, st status) pci.Authentication {
	outcome, known := outcomes[st.TransStatus]
	if !known {
		outcome = pci.AuthenticationNo
	}
	auth := pci.Authentication{
		Outcome: outcome, TransStatus: st.TransStatus, Reason: st.TransStatusReason, Version: h.MessageVersion,
		ServerTransID: ids.ThreeDSServerTransID, DSTransID: ids.DSTransID, ACSTransID: ids.ACSTransID,
	}
	if len(st.ECI) == 1 {
		st.ECI = "0" + st.ECI // some directory servers leave the zero out
	}
	auth.ECI = st.ECI
	if outcome != pci.Authenticated && outcome != pci.AuthenticationTried {
		return auth
	}
	if !isCAVV(st.AuthenticationValue) {
		slog.ErrorContext(ctx, "an authentication without a valid authenticationValue counts as none",
			"payment", payment, "trans_status", st.TransStatus)
		auth.Outcome, auth.ECI = pci.AuthenticationNo, ""
		return auth
	}
	auth.CAVV = st.AuthenticationValue
	return auth
}

// isCAVV reports whether s is base64 of 20 bytes (table A.1, authenticationValue).
func isCAVV(s string) bool {
	if len(s) != 28 {
		return false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 20
}

// encodeCReq returns the challenge request (table B.3) as the browser posts it: base64url without padding
// (section 3.3, step 10).
func encodeCReq(a ares, windowSize string) string {
	creq, _ := json.Marshal(struct { // strings only: cannot fail
		ThreeDSServerTransID string `json:"threeDSServerTransID"`
		ACSTransID           string `json:"acsTransID"`
		ChallengeWindowSize  string `json:"challengeWindowSize"`
		MessageType          string `json:"messageType"`
		MessageVersion       string `json:"messageVersion"`
	}{a.ThreeDSServerTransID, a.ACSTransID, windowSize, messageCReq, a.MessageVersion})
	return base64.RawURLEncoding.EncodeToString(creq)
}

// cres is a challenge response (table B.4), as the browser brings it.
type cres struct {
	header
	ThreeDSServerTransID string `json:"threeDSServerTransID"`
	ACSTransID           string `json:"acsTransID"`
	TransStatus          string `json:"transStatus"`
}

// ErrCRes means that a browser's cres field is neither a CRes nor an Erro message.
var ErrCRes = errors.New("threeds: not a CRes")

// ParseCRes reads the cres field that the ACS had the browser post to notificationURL: base64url of a CRes, or of
// an Erro, which gives an empty transStatus. It is evidence only, never a result: anybody can post one.
func ParseCRes(field []byte) (serverTransID, transStatus string, err error) {
	if len(field) > maxAnswer {
		return "", "", ErrCRes
	}
	for len(field) > 0 && field[len(field)-1] == '=' { // some ACSs pad
		field = field[:len(field)-1]
	}
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(field)))
	n, err := base64.RawURLEncoding.Decode(raw, field)
	if err != nil {
		return "", "", ErrCRes
	}
	var c cres
	if err := decode(raw[:n], &c); err != nil || !isTransID(c.ThreeDSServerTransID) || versionOf(c.MessageVersion) == noVersion {
		return "", "", ErrCRes
	}
	switch {
	case c.MessageType == messageErro:
		return c.ThreeDSServerTransID, "", nil
	case c.MessageType == messageCRes && (c.TransStatus == "Y" || c.TransStatus == "N"):
		return c.ThreeDSServerTransID, c.TransStatus, nil
	}
	return "", "", ErrCRes
}
