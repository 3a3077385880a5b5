package simulator

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed pages/style.css
var styleSheet string

//go:embed pages/submit.js
var submitScript string

// pages has the style sheet and the one script in the pages themselves, so that nothing else has to be fetched.
var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"style":  func() template.HTML { return template.HTML("<style>" + styleSheet + "</style>") },
	"script": func() template.HTML { return template.HTML("<script>" + submitScript + "</script>") },
}).ParseFS(pageFiles, "pages/*.html"))

// contentSecurityPolicy lets nothing run or load but the style sheet and the script above, by their hashes.
var contentSecurityPolicy = "default-src 'none'; base-uri 'none'; style-src '" + hashOf(styleSheet) +
	"'; script-src '" + hashOf(submitScript) + "'; "

// anyShop are the form targets of pages whose forms end, by redirects, at a page that is not known yet.
const anyShop = "https: http://localhost:* http://127.0.0.1:*"

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// render writes a page, with formAction as the directive of its policy that says where forms may go.
func render(w http.ResponseWriter, status int, name, formAction string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentSecurityPolicy+formAction)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}

func showError(w http.ResponseWriter, status int, what string) {
	render(w, status, "error.html", "form-action 'none'", what)
}
