package client

import (
	"encoding/json"
	"errors"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
)

// checkReceipt wants the key's birth in the log, with its check value, under the log's pinned key: whoever ends TLS on the
// way could put a key of their own into the document otherwise, and open every card.
func checkReceipt(document api.IntakeKey, logKey string) error {
	for _, r := range document.Receipt {
		var entry struct {
			Type     string `json:"type"`
			Resource string `json:"resource"`
			Data     struct {
				Key struct {
					CheckValue string `json:"check_value"`
				} `json:"key"`
			} `json:"data"`
		}
		if json.Unmarshal([]byte(r.Entry), &entry) != nil || entry.Type != "key.created" || entry.Resource != "hsm:"+document.Key ||
			entry.Data.Key.CheckValue != document.CheckValue {
			continue
		}
		origin := logproof.Origin([]byte(r.Proof))
		if logproof.Verify(r.Index, []byte(r.Entry), []byte(r.Proof), origin, logproof.KeyNamed(logKey, origin)) == nil {
			return nil
		}
	}
	return errors.New("client: the log does not prove the key that cards would be sealed to: nothing is sent")
}
