package api

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/pci"
)

// maxID is the longest payment id or checkout session that is looked up, in bytes.
const maxID = 128

func (s *server) createPayment(w http.ResponseWriter, r *http.Request, caller Caller) error {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	if _, err := readQuery(r); err != nil {
		return ErrUnknownField.With("This route takes no query.")
	}
	var request CreatePayment
	if err := s.readJSON(w, r, &request); err != nil {
		return err
	}
	request, err = request.normalize()
	if err != nil {
		return err
	}
	payment, err := s.cfg.Payments.Create(r.Context(), caller, request, key)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/payments/"+payment.ID)
	return writeJSON(w, http.StatusCreated, payment)
}

// readModification reads what a merchant does with a payment: the id in the path, the idempotency key, and a body where there
// is one.
func (s *server) readModification(w http.ResponseWriter, r *http.Request, body any) (id, key string, err error) {
	if id, err = paymentID(r); err != nil {
		return "", "", err
	}
	if key, err = idempotencyKey(r.Header); err != nil {
		return "", "", err
	}
	if _, err := readQuery(r); err != nil {
		return "", "", ErrUnknownField.With("This route takes no query.")
	}
	if r.ContentLength == 0 {
		return id, key, nil
	}
	return id, key, s.readJSON(w, r, body)
}

func (s *server) capturePayment(w http.ResponseWriter, r *http.Request, caller Caller) error {
	var request ModifyPayment
	id, key, err := s.readModification(w, r, &request)
	if err != nil {
		return err
	}
	if err := request.check(); err != nil {
		return err
	}
	payment, err := s.cfg.Payments.Capture(r.Context(), caller, id, request, key)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, payment)
}

func (s *server) voidPayment(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, key, err := s.readModification(w, r, &struct{}{})
	if err != nil {
		return err
	}
	payment, err := s.cfg.Payments.Void(r.Context(), caller, id, key)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, payment)
}

func (s *server) refundPayment(w http.ResponseWriter, r *http.Request, caller Caller) error {
	var request ModifyPayment
	id, key, err := s.readModification(w, r, &request)
	if err != nil {
		return err
	}
	if err := request.check(); err != nil {
		return err
	}
	refund, err := s.cfg.Payments.Refund(r.Context(), caller, id, request, key)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, refund)
}

func (s *server) listRefunds(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := paymentID(r)
	if err != nil {
		return err
	}
	list, err := s.cfg.Payments.Refunds(r.Context(), caller, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) forgetCustomer(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := paymentID(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Payments.ForgetCustomer(r.Context(), caller, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) listPayments(w http.ResponseWriter, r *http.Request, caller Caller) error {
	query, err := listQuery(r)
	if err != nil {
		return err
	}
	list, err := s.cfg.Payments.List(r.Context(), caller, query)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) getPayment(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := paymentID(r)
	if err != nil {
		return err
	}
	payment, err := s.cfg.Payments.Get(r.Context(), caller, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, payment)
}

func (s *server) getReceipt(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := paymentID(r)
	if err != nil {
		return err
	}
	receipt, err := s.cfg.Payments.Receipt(r.Context(), caller, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, receipt)
}

// paymentID returns the id in the path. What cannot be one is not looked up.
func paymentID(r *http.Request) (string, error) {
	id := mux.Vars(r)["id"]
	if len(id) > maxID || !isName(id) || pci.LooksLikePAN(id) {
		return "", ErrNotFound
	}
	return id, nil
}

func getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml") // RFC 9512
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(openAPI)
	return nil
}
