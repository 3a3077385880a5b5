package threeds

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// methodData is the 3DS Method Data (section 5.8.1, table A.2): what the browser posts to the ACS, and, with the first element
// alone, what the ACS posts back.
type methodData struct {
	ThreeDSServerTransID         string `json:"threeDSServerTransID"`
	ThreeDSMethodNotificationURL string `json:"threeDSMethodNotificationURL,omitempty"`
}

// maxMethodData is longer than any threeDSMethodData that an ACS posts back.
const maxMethodData = 1024

// Method returns the 3DS Method of the range of the card that req is about, nil where it has none that can be run. notificationURL
// is where the ACS's frame comes back to, at most 256 characters. Errors are those of [Server.Authenticate].
func (s *Server) Method(ctx context.Context, req pci.AuthenticationRequest, notificationURL string) (*pci.Method, error) {
	var found enrolment
	err := s.lend(ctx, req, func(c *pan.Card) error {
		found = s.lookUp(c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("threeds: 3DS Method of %s: %w", req.Payment, err)
	}
	if found.status != insideRanges || checkURL(found.method, s.cfg.AllowHTTP) != nil || len(notificationURL) > 256 {
		return nil, nil //nolint:nilnil // no method is the usual answer
	}
	m := &pci.Method{URL: found.method, ServerTransID: newTransID()}
	text, err := json.Marshal(methodData{m.ServerTransID, notificationURL})
	if err != nil {
		return nil, fmt.Errorf("threeds: 3DS Method Data: %w", err)
	}
	m.Data = base64.RawURLEncoding.EncodeToString(text)
	return m, nil
}

// MethodTransID returns the threeDSServerTransID of the threeDSMethodData that an ACS has posted back, empty where there is none.
func MethodTransID(data string) string {
	if len(data) > maxMethodData {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(data)
	if err != nil {
		return ""
	}
	var m methodData
	if err := json.Unmarshal(text, &m); err != nil || !isTransID(m.ThreeDSServerTransID) {
		return ""
	}
	return m.ThreeDSServerTransID
}
