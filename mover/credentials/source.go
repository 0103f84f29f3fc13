package credentials

import (
	"context"
	"errors"

	"gopkg.in/ini.v1"

	"github.com/estiba-dev/estiba/mover/credentials/role"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// Source returns a location's credentials. It reads the Secret each time that it
// is asked, so that a rotated one is taken up, and asks for a role's credentials anew.
func (l Location) Source(from Surroundings) settings.Source {
	return settings.SourceFunc(func(ctx context.Context) (settings.Credentials, error) {
		if l.Settings.Kind == settings.Filesystem {
			return settings.Credentials{}, nil
		}

		if l.Secret.Name == "" {
			return from.Role.Credentials(ctx, l.Settings)
		}

		content, err := from.Secrets(ctx, l.Secret.Name, l.Secret.Key)
		if l.OrRole && errors.Is(err, ErrNoSecret) {
			c, of := from.Role.Credentials(ctx, l.Settings)
			if of != nil {
				return c, engine.Errorf(engine.CodeOf(of), "%w; and %w", err, of)
			}

			return c, nil
		}

		if err != nil {
			return settings.Credentials{}, l.wrap(err)
		}

		p, err := ParseAWS(content, l.Profile)
		if err == nil && p.Role.TokenFile != "" {
			p.Credentials, err = from.Role.Assume(ctx, l.Settings, p.Role)
		}

		if err != nil {
			return settings.Credentials{}, l.wrap(err)
		}

		return p.Credentials, nil
	})
}

func (l Location) wrap(err error) error {
	code := engine.CodeCredentialsInvalid

	var coded *engine.Error
	if errors.As(err, &coded) {
		code = coded.Code
	}

	return engine.Errorf(code, "key %s of Secret %s: %w", l.Secret.Key, l.Secret.Name, err)
}

// defaultProfile is the section that is read where none is named.
const defaultProfile = "default"

// Profile is what a profile of a credentials file holds: keys, or a role and where the token for it is.
type Profile struct {
	Credentials settings.Credentials
	Role        role.WebIdentity
}

// ParseAWS reads a profile of an AWS shared credentials file, the empty one being
// "default". Errors name what is missing and quote no value.
func ParseAWS(content []byte, profile string) (Profile, error) {
	if profile == "" {
		profile = defaultProfile
	}

	file, err := ini.LoadSources(ini.LoadOptions{
		InsensitiveKeys: true, IgnoreInlineComment: true, AllowNestedValues: true, SkipUnrecognizableLines: true,
	}, content)
	if err != nil {
		return Profile{}, engine.Errorf(engine.CodeCredentialsInvalid, "it is not an AWS credentials file")
	}

	if !file.HasSection(profile) {
		return Profile{}, engine.Errorf(engine.CodeCredentialsInvalid, "it has no profile [%s]", profile)
	}

	section := file.Section(profile)
	p := Profile{
		Credentials: settings.Credentials{
			AccessKeyID:     section.Key("aws_access_key_id").String(),
			SecretAccessKey: section.Key("aws_secret_access_key").String(),
			SessionToken:    section.Key("aws_session_token").String(),
		},
		Role: role.WebIdentity{
			Role:      section.Key("role_arn").String(),
			TokenFile: section.Key("web_identity_token_file").String(),
			Session:   section.Key("role_session_name").String(),
		},
	}

	switch {
	case p.Credentials.AccessKeyID != "" && p.Credentials.SecretAccessKey != "":
		p.Role = role.WebIdentity{}
		return p, nil
	case p.Role.Role != "" && p.Role.TokenFile != "":
		p.Credentials = settings.Credentials{}
		return p, nil
	}

	missing := "aws_access_key_id"
	if p.Credentials.AccessKeyID != "" {
		missing = "aws_secret_access_key"
	}

	return Profile{}, engine.Errorf(engine.CodeCredentialsInvalid,
		"profile [%s] has no %s (nor role_arn with web_identity_token_file; other roles, processes and other profiles as sources are not supported)", profile, missing)
}
