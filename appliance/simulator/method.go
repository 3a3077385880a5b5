package simulator

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/google/uuid"
)

// serveMethod is the issuer's 3DS Method: a page in a hidden frame that would look at the browser, and goes back at once.
func serveMethod(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxMessage)
	var data struct {
		ThreeDSServerTransID         string `json:"threeDSServerTransID"`
		ThreeDSMethodNotificationURL string `json:"threeDSMethodNotificationURL,omitempty"`
	}
	text, err := base64.RawURLEncoding.DecodeString(r.PostFormValue("threeDSMethodData"))
	if err == nil {
		err = json.Unmarshal(text, &data)
	}
	back, urlErr := url.Parse(data.ThreeDSMethodNotificationURL)
	if err != nil || urlErr != nil || back.Scheme != "https" || uuid.Validate(data.ThreeDSServerTransID) != nil {
		http.Error(w, "threeDSMethodData cannot be read", http.StatusBadRequest)
		return
	}
	data.ThreeDSMethodNotificationURL = ""
	answer, err := json.Marshal(data)
	if err != nil {
		http.Error(w, "the answer cannot be made", http.StatusInternalServerError)
		return
	}
	render(w, http.StatusOK, "method.html", "form-action https://"+back.Host, struct{ NotificationURL, Data string }{
		back.String(), base64.RawURLEncoding.EncodeToString(answer)})
}
