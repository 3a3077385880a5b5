package simulator

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Versions of EMV 3-D Secure that are spoken, and a limit of its messages.
const (
	version220 = "2.2.0"
	version231 = "2.3.1"
	maxMessage = 64 << 10
)

// slowAfter is how long a [DSSlow] card's request is kept.
const slowAfter = 30 * time.Second

// serialNum is the version of the directory server's ranges, which never change.
const serialNum = "1"

// cardRange is an element of cardRangeData.
type cardRange struct {
	StartRange              string `json:"startRange"`
	EndRange                string `json:"endRange"`
	ActionInd               string `json:"actionInd"`
	ACSStartProtocolVersion string `json:"acsStartProtocolVersion"`
	ACSEndProtocolVersion   string `json:"acsEndProtocolVersion"`
	ThreeDSMethodURL        string `json:"threeDSMethodURL,omitempty"`
}

// enrolled are the ranges in 3-D Secure: the great schemes but for Discover, so that there is a card without.
var enrolled = append(rangesOf(version220,
	"4000000000000000", "4572999999999999", "4574000000000000", "4999999999999999", // Visa, but for those of 2.3.1
	"2221000000000000", "2720999999999999", "5100000000000000", "5599999999999999", // Mastercard
	"5000000000000000", "5099999999999999", "5600000000000000", "5899999999999999", // Maestro
	"340000000000000", "349999999999999", "370000000000000", "379999999999999", // American Express
	"36000000000000", "36999999999999", // Diners Club
	"3528000000000000", "3589999999999999", // JCB
	"6200000000000000", "6299999999999999", // UnionPay
), rangesOf(version231, "4573000000000000", "4573999999999999")...)

// rangesOf returns ranges whose issuers speak versions up to the newest.
func rangesOf(newest string, bounds ...string) []cardRange {
	var ranges []cardRange
	for pair := range slices.Chunk(bounds, 2) {
		ranges = append(ranges, cardRange{
			StartRange: pair[0], EndRange: pair[1], ActionInd: "A",
			ACSStartProtocolVersion: "2.1.0", ACSEndProtocolVersion: newest,
		})
	}
	return ranges
}

func isEnrolled(number string) bool { return newestVersion(number) != "" }

// newestVersion is that which the card's issuer speaks, empty where it is not enrolled.
func newestVersion(number string) string {
	for _, r := range enrolled {
		if len(number) == len(r.StartRange) && r.StartRange <= number && number <= r.EndRange {
			return r.ACSEndProtocolVersion
		}
	}
	return ""
}

// in231 is a range as 2.3.1 writes it.
func (r cardRange) in231() elements {
	acs := []elements{{"version": version220, "acsInfoInd": []string{"01", "02"}}}
	if r.ACSEndProtocolVersion == version231 {
		acs = append(acs, elements{"version": version231, "acsInfoInd": []string{"01", "02"}})
	}
	for _, a := range acs {
		if r.ThreeDSMethodURL != "" {
			a["threeDSMethodURL"] = r.ThreeDSMethodURL
		}
	}
	return elements{"ranges": []elements{{"startRange": r.StartRange, "endRange": r.EndRange}}, "actionInd": r.ActionInd, "acsProtocolVersions": acs}
}

// DirectoryServer answers a 3DS Server's PReq and AReq messages, the latter as the issuer's ACS would, by the card:
// see [Cards]. Faults in a message are answered with an Erro that names the data elements.
type DirectoryServer struct {
	// ACS takes the challenges; ACSURL is where a browser reaches it.
	ACS    *ACS
	ACSURL string
	// MethodURL is where a browser runs the issuer's 3DS Method; empty for none.
	MethodURL string
	// AnyClient serves callers without a verified client certificate too; for tests without TLS.
	AnyClient bool
	Log       *slog.Logger // nil means [slog.Default]

	behaviour behaviour
}

// BehaveHandler changes what goes wrong with answers to AReqs: GET and POST of a [Behaviour], from this machine alone.
func (d *DirectoryServer) BehaveHandler() http.Handler {
	d.behaviour.faults = directoryFaults
	return &d.behaviour
}

// ServeHTTP implements [http.Handler].
func (d *DirectoryServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.AnyClient && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
		http.Error(w, "the directory server wants a client certificate", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		http.Error(w, "the message is too long", http.StatusRequestEntityTooLarge)
		return
	}
	var m elements
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		writeJSON(w, m.erro("203", "not a JSON object"))
		return
	}
	logger(d.Log).InfoContext(r.Context(), "directory server: message received", "type", m.text("messageType"))
	switch m.text("messageType") {
	case "PReq":
		writeJSON(w, d.preparation(m))
	case "AReq":
		if !d.breaks(w, m) && !d.misbehave(w, r, m) {
			writeJSON(w, d.authentication(m))
		}
	case "Erro":
		logger(d.Log).WarnContext(r.Context(), "directory server: error message", "code", m.text("errorCode"), "detail", m.text("errorDetail"))
		w.WriteHeader(http.StatusOK)
	default:
		writeJSON(w, m.erro("101", "messageType"))
	}
}

// elements are the data elements of a message.
type elements map[string]any

// text returns an element, "" when it is missing or no string.
func (m elements) text(name string) string {
	s, _ := m[name].(string)
	return s
}

// version is the message's own where it is spoken.
func (m elements) version() string {
	if m.text("messageVersion") == version231 {
		return version231
	}
	return version220
}

func (m elements) erro(code, detail string) elements {
	e := elements{
		"messageType": "Erro", "messageVersion": m.version(), "errorCode": code, "errorComponent": "D",
		"errorDescription": "The message was refused", "errorDetail": detail,
	}
	for _, id := range []string{"threeDSServerTransID", "dsTransID", "acsTransID"} {
		if s := m.text(id); uuid.Validate(s) == nil {
			e[id] = s
		}
	}
	if s := m.text("messageType"); s != "" && len(s) == 4 {
		e["errorMessageType"] = s
	}
	return e
}

func (d *DirectoryServer) preparation(m elements) elements {
	if refusal := m.check(preqElements); refusal != nil {
		return refusal
	}
	answer := elements{
		"messageType": "PRes", "messageVersion": m.version(), "threeDSServerTransID": m["threeDSServerTransID"],
		"dsTransID": uuid.NewString(), "serialNum": serialNum,
	}
	if m.version() == version231 {
		answer["dsProtocolVersions"] = []string{"2.1.0", version220, version231}
	} else {
		answer["dsStartProtocolVersion"], answer["dsEndProtocolVersion"] = "2.1.0", version231
	}
	switch m.text("serialNum") {
	case "":
		ranges := slices.Clone(enrolled)
		for i := range ranges {
			ranges[i].ThreeDSMethodURL = d.MethodURL
		}
		answer["cardRangeData"] = ranges
		if m.version() == version231 {
			var list []elements
			for _, r := range ranges {
				list = append(list, r.in231())
			}
			answer["cardRangeData"] = list
		}
	case serialNum: // nothing has changed
	default:
		return m.erro("307", "serialNum")
	}
	return answer
}

func (d *DirectoryServer) authentication(m elements) elements {
	if refusal := m.check(areqElements); refusal != nil {
		return refusal
	}
	number := m.text("acctNumber")
	if !isEnrolled(number) {
		return m.erro("305", "acctNumber: in no card range")
	}
	if newestVersion(number) < m.version() {
		return m.erro("203", "messageVersion")
	}
	if refusal := m.checkVersion(); refusal != nil {
		return refusal
	}
	behaviour := behaviourOf(number).ThreeDS
	if behaviour == Frictionless && m.challengeMandated() {
		behaviour = Challenge
	}
	answer := elements{
		"messageType": "ARes", "messageVersion": m.version(), "threeDSServerTransID": m["threeDSServerTransID"],
		"dsTransID": uuid.NewString(), "acsTransID": uuid.NewString(), "transStatus": string(behaviour),
		"dsReferenceNumber": "FINPAY-SIMULATED-DS", "acsReferenceNumber": "FINPAY-SIMULATED-ACS", "acsOperatorID": "SIMULATED",
	}
	if eci := eciOf(number, string(behaviour)); eci != "" {
		answer["eci"] = eci
	}
	switch behaviour {
	case Frictionless, Attempted:
		answer["authenticationValue"] = newCAVV(false)
	case Challenge:
		answer["acsURL"], answer["acsChallengeMandated"] = d.ACSURL, "Y"
		if m.version() == version220 {
			answer["authenticationType"] = "01"
		}
		d.ACS.expect(m, answer.text("dsTransID"), answer.text("acsTransID"))
	case NotAuthentic:
		answer["transStatusReason"] = "01" // card authentication failed
	case Rejected:
		answer["transStatusReason"] = "11" // suspected fraud
	case Unavailable:
		answer["transStatusReason"] = "14" // transaction timed out at the ACS
	}
	return answer
}

// misbehave does what the card says instead of an answer, and reports whether it did.
func (d *DirectoryServer) misbehave(w http.ResponseWriter, r *http.Request, m elements) bool {
	switch behaviourOf(m.text("acctNumber")).ThreeDS {
	case DSFails:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case DSSlow:
		timer := time.NewTimer(slowAfter)
		defer timer.Stop()
		select {
		case <-r.Context().Done():
		case <-timer.C:
		}
	case DSMalformed:
		_, _ = io.WriteString(w, `{"messageType": "ARes", `)
	case DSWrongID:
		answer := d.authentication(m)
		answer["transStatus"], answer["authenticationValue"], answer["threeDSServerTransID"] = "Y", newCAVV(false), uuid.NewString()
		writeJSON(w, answer)
	case DSErro:
		writeJSON(w, m.erro("404", "permanent system failure"))
	default:
		return false
	}
	return true
}

// breaks does what was told instead of an answer, and reports whether it did.
func (d *DirectoryServer) breaks(w http.ResponseWriter, m elements) bool {
	b := d.behaviour.struck(directoryFaults...)
	if b.Fault == "" {
		return false
	}
	if b.Fault == Truncated {
		answer, _ := json.Marshal(d.authentication(m)) // strings only: cannot fail
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer[:len(answer)/2])
	}
	panic(http.ErrAbortHandler) // which closes the connection, and nothing else
}

// checkVersion returns an Erro for what is not as the message's version has it, nil when nothing is.
func (m elements) checkVersion() elements {
	_, text := m["threeDSRequestorChallengeInd"].(string)
	list, _ := m["acceptLanguage"].([]any)
	_, code := m["cardSecurityCode"]
	switch old := m.version() == version220; {
	case m["threeDSRequestorChallengeInd"] != nil && text != old:
		return m.erro("203", "threeDSRequestorChallengeInd")
	case !old && len(list) == 0:
		return m.erro("201", "acceptLanguage")
	case old && (code || m["acceptLanguage"] != nil):
		return m.erro("203", "an element of a later version")
	}
	return nil
}

// challengeMandated reports whether the 3DS Requestor must have a challenge.
func (m elements) challengeMandated() bool {
	list, _ := m["threeDSRequestorChallengeInd"].([]any)
	return m.text("threeDSRequestorChallengeInd") == "04" || slices.Contains(list, any("04"))
}

// eciOf returns the electronic commerce indicator that the card's scheme gives for a transStatus.
func eciOf(number, transStatus string) string {
	mastercard := strings.HasPrefix(number, "5") || strings.HasPrefix(number, "2")
	switch {
	case transStatus == "Y" && mastercard:
		return "02"
	case transStatus == "A" && mastercard:
		return "01"
	case transStatus == "Y":
		return "05"
	case transStatus == "A":
		return "06"
	case transStatus == "C":
		return ""
	case mastercard:
		return "00"
	}
	return "07"
}

// newCAVV returns an authenticationValue: base64 of 20 bytes, of which the first says whether there was a challenge and the others
// are random.
func newCAVV(challenged bool) string {
	var b [20]byte
	_, _ = rand.Read(b[:])
	if b[0] = 0; challenged {
		b[0] = 1
	}
	return base64.StdEncoding.EncodeToString(b[:])
}

func writeJSON(w http.ResponseWriter, message any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(message)
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}
