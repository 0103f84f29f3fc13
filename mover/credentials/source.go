package credentials

import (
	"context"
	"errors"

	"gopkg.in/ini.v1"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// Source gives a location's credentials. It reads the Secret each time that it
// is asked, so that a rotated one is taken up.
func (l Location) Source(secrets Secrets) settings.Source {
	return settings.SourceFunc(func(ctx context.Context) (settings.Credentials, error) {
		if l.Settings.Kind == settings.Filesystem {
			return settings.Credentials{}, nil
		}

		content, err := secrets(ctx, l.Secret.Name, l.Secret.Key)
		if err != nil {
			return settings.Credentials{}, l.wrap(err)
		}

		c, err := ParseAWS(content, l.Profile)
		if err != nil {
			return settings.Credentials{}, l.wrap(err)
		}

		return c, nil
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

// ParseAWS reads an AWS shared credentials file: the keys of a profile, the
// empty one being "default". Errors name what is missing and quote no value.
func ParseAWS(content []byte, profile string) (settings.Credentials, error) {
	var c settings.Credentials

	if profile == "" {
		profile = defaultProfile
	}

	file, err := ini.LoadSources(ini.LoadOptions{
		InsensitiveKeys: true, IgnoreInlineComment: true, AllowNestedValues: true, SkipUnrecognizableLines: true,
	}, content)
	if err != nil {
		return c, engine.Errorf(engine.CodeCredentialsInvalid, "it is not an AWS credentials file")
	}

	if !file.HasSection(profile) {
		return c, engine.Errorf(engine.CodeCredentialsInvalid, "it has no profile [%s]", profile)
	}

	section := file.Section(profile)
	c = settings.Credentials{
		AccessKeyID:     section.Key("aws_access_key_id").String(),
		SecretAccessKey: section.Key("aws_secret_access_key").String(),
		SessionToken:    section.Key("aws_session_token").String(),
	}

	for key, value := range map[string]string{"aws_access_key_id": c.AccessKeyID, "aws_secret_access_key": c.SecretAccessKey} {
		if value == "" {
			return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid,
				"profile [%s] has no %s (roles, web identities and processes are not supported)", profile, key)
		}
	}

	return c, nil
}
