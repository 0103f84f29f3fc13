package role

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// Assume exchanges the token of a web identity for the credentials of its role.
// The errors are those of Credentials.
func (r Surroundings) Assume(ctx context.Context, s settings.Settings, w WebIdentity) (settings.Credentials, error) {
	if w.Role == "" {
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid,
			"there is a token for a role (%s) and no role that it is for (%s, or role_arn of a profile)", w.TokenFile, envRole)
	}

	token, err := r.token(w.TokenFile)
	if err != nil {
		return settings.Credentials{}, err
	}

	client, err := r.Client(s)
	if err != nil {
		return settings.Credentials{}, err
	}

	// A client of its own each time: once in an hour there is nothing to keep open.
	defer client.CloseIdleConnections()

	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"},
		"RoleArn": {w.Role}, "RoleSessionName": {cmp.Or(w.Session, "estiba")}, "WebIdentityToken": {token},
	}

	body, err := question{
		client: client, method: http.MethodPost, url: r.sts(s.Region), body: form.Encode(),
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	}.ask(ctx)
	if err != nil {
		return settings.Credentials{}, wrap(fmt.Sprintf("assume role %s with the token in %s", w.Role, w.TokenFile), err)
	}

	var answer struct {
		Credentials temporary `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return settings.Credentials{}, engine.Errorf(engine.CodeStoreUnavailable, "read the answer of %s: it is no answer of an STS", r.sts(s.Region))
	}

	return answer.Credentials.credentials()
}

// sts gives the address of the service that hands out roles in a region.
func (r Surroundings) sts(region string) string {
	const global = "https://sts.amazonaws.com/"

	if address := r.Env(envSTS); address != "" {
		return strings.TrimSuffix(address, "/") + "/"
	}

	region = cmp.Or(region, r.Env(envRegion), r.Env(envDefault))

	switch {
	case strings.HasPrefix(region, "cn-"):
		return "https://sts." + region + ".amazonaws.com.cn/"
	case region == "", r.Env(envSTSRegional) == "legacy":
		return global
	default:
		return "https://sts." + region + ".amazonaws.com/"
	}
}

// temporary are credentials as services of Amazon's kind write them.
type temporary struct {
	AccessKeyID     string `json:"AccessKeyId"     xml:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey" xml:"SecretAccessKey"`
	SessionToken    string `json:"Token"           xml:"SessionToken"`
	Expiration      time.Time
	Code            string `xml:"-"`
	Message         string `xml:"-"`
}

func (t temporary) credentials() (settings.Credentials, error) {
	if t.Code != "" && t.Code != "Success" || t.AccessKeyID == "" || t.SecretAccessKey == "" {
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid, "the answer holds no credentials (%s %s)", t.Code, t.Message)
	}

	return settings.Credentials{
		AccessKeyID: t.AccessKeyID, SecretAccessKey: t.SecretAccessKey, SessionToken: t.SessionToken, Expires: t.Expiration,
	}, nil
}

func parseJSON(body []byte) (settings.Credentials, error) {
	var t temporary
	if err := json.Unmarshal(body, &t); err != nil {
		return settings.Credentials{}, engine.Errorf(engine.CodeStoreUnavailable, "the answer with a role's credentials is not JSON")
	}

	return t.credentials()
}

// question is one request for credentials.
type question struct {
	client      *http.Client
	method, url string
	header      http.Header
	body        string
}

// ask gives the answer's body. The error is an *answerError if there was another answer than 200.
func (q question) ask(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, strings.NewReader(q.body))
	if err != nil {
		return nil, fmt.Errorf("make a request to %s: %w", q.url, err)
	}

	req.Header = q.header

	// A token goes where it was meant to go, and nowhere that somebody redirects it to.
	client := *q.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("send a request: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // what counts was read

	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", q.url, err)
	}

	if res.StatusCode != http.StatusOK {
		return nil, refusal(res.StatusCode, body)
	}

	return body, nil
}

// answerError is an answer without credentials.
type answerError struct {
	status        int
	code, message string
}

// Error gives what the service said.
func (e *answerError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the answer was %d %s %s", e.status, e.code, e.message))
}

// refusal reads the error of an answer, of an STS or of another kind.
func refusal(status int, body []byte) error {
	var said struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}

	e := &answerError{status: status}
	if xml.Unmarshal(body, &said) == nil {
		e.code, e.message = said.Code, said.Message
	}

	return e
}

func statusOf(err error) int {
	var e *answerError
	if errors.As(err, &e) {
		return e.status
	}

	return 0
}

// answered tells whether there was an answer at all, be it one that is no use.
func answered(err error) bool {
	var (
		e     *answerError
		coded *engine.Error
	)

	return errors.As(err, &e) || errors.As(err, &coded)
}

// wrap gives a failed question its code.
func wrap(attempt string, err error) error {
	var (
		e     *answerError
		coded *engine.Error
		code  = engine.CodeStoreUnavailable
	)

	switch {
	case errors.As(err, &coded):
		code = coded.Code
	case !errors.As(err, &e):
		// Nobody answered.
	case e.status == http.StatusTooManyRequests, e.status >= http.StatusInternalServerError, e.code == "IDPCommunicationError":
		// Somebody will.
	default:
		code = engine.CodeCredentialsInvalid
	}

	return engine.Errorf(code, "%s: %w", attempt, err)
}
