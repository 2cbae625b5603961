import com.github.benmanes.caffeine.cache.Caffeine;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.JSONObjectUtils;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.AppConfigurationEntry.LoginModuleControlFlag;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.SaslConfigs;
import org.apache.kafka.common.config.internals.BrokerSecurityConfigs;
import org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator;
import org.springframework.cache.caffeine.CaffeineCache;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

/**
 * Java's clients, one program: the library to use is its argument. The protocol is that of every
 * client program here: one JSON request a line on stdin, one answer a line on stdout, in any order.
 * A request names its verifier, which is made when it is first named and keeps its own cache.
 */
public final class Interop {
    interface Verifier {
        Map<String, Object> verify(String token) throws Exception;
    }

    /** Nimbus with its JWKSource's defaults, or with a shorter lifetime of its cache. */
    static Verifier nimbus(String issuer, String url, Double ttl) throws Exception {
        JWKSourceBuilder<SecurityContext> builder = JWKSourceBuilder.create(URI.create(url).toURL());
        if (ttl != null) {
            // It refuses a lifetime that is not longer than the rate limit and the refresh ahead.
            long lifetime = (long) (ttl * 1000);
            // And its patience with a refresh is to outlast a busy machine.
            builder.cache(lifetime, lifetime * 7 / 10)
                .refreshAheadCache(lifetime / 4, false)
                .rateLimited(lifetime / 2);
        }
        JWKSource<SecurityContext> keys = builder.build();
        Set<JWSAlgorithm> algorithms = new LinkedHashSet<>(JWSAlgorithm.Family.SIGNATURE);
        DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(algorithms, keys));
        var claimsVerifier = new DefaultJWTClaimsVerifier<SecurityContext>(
            new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("exp"));
        processor.setJWTClaimsSetVerifier(claimsVerifier);
        return token -> {
            SignedJWT jwt = SignedJWT.parse(token);
            if (!JWSAlgorithm.EdDSA.equals(jwt.getHeader().getAlgorithm())) {
                return processor.process(jwt, null).toJSONObject();
            }
            // The processor's verifier factory leaves EdDSA to the application.
            List<JWK> found = keys.get(new JWKSelector(JWKMatcher.forJWSHeader(jwt.getHeader())), null);
            if (found.isEmpty() || !jwt.verify(new Ed25519Verifier(found.get(0).toOctetKeyPair()))) {
                throw new IllegalArgumentException("no key verifies it");
            }
            claimsVerifier.verify(jwt.getJWTClaimsSet(), null);
            return jwt.getJWTClaimsSet().toJSONObject();
        };
    }

    /** Spring Security from the discovery document, with its default cache or one that expires. */
    static Verifier spring(String issuer, String url, Double ttl) {
        var builder = NimbusJwtDecoder.withIssuerLocation(issuer)
            .jwsAlgorithms(all -> all.addAll(List.of(SignatureAlgorithm.values())));
        if (ttl != null) {
            Duration lifetime = Duration.ofMillis((long) (ttl * 1000));
            builder.cache(new CaffeineCache("jwks",
                Caffeine.newBuilder().expireAfterWrite(lifetime).build()));
        }
        NimbusJwtDecoder decoder = builder.build();
        return token -> {
            Map<String, Object> claims = new HashMap<>(decoder.decode(token).getClaims());
            claims.replaceAll((name, value) -> value instanceof List ? value : value.toString());
            return claims;
        };
    }

    /** Kafka's broker, with its configuration's defaults, or with a shorter time between two fetches. */
    static Verifier kafka(String name, String issuer, String url, Double ttl) {
        // It fetches from what its operator has named in this property alone.
        System.setProperty(BrokerSecurityConfigs.ALLOWED_SASL_OAUTHBEARER_URLS_CONFIG, url);
        Map<String, Object> config = new HashMap<>(Map.of(
            SaslConfigs.SASL_OAUTHBEARER_JWKS_ENDPOINT_URL, url,
            SaslConfigs.SASL_OAUTHBEARER_EXPECTED_ISSUER, issuer,
            SaslConfigs.SASL_OAUTHBEARER_ALLOW_UNVERIFIED_AUDIENCE, true));
        var definition = new ConfigDef();
        SaslConfigs.addClientSaslSupport(definition);
        definition.defaultValues().forEach(config::putIfAbsent);
        if (ttl != null) {
            config.put(SaslConfigs.SASL_OAUTHBEARER_JWKS_ENDPOINT_REFRESH_MS, (long) (ttl * 1000));
        }
        var validator = new BrokerJwtValidator();
        // What differs in its options has a cache of its own.
        var options = Map.of("verifier", name);
        var login = new AppConfigurationEntry("none", LoginModuleControlFlag.REQUIRED, options);
        validator.configure(config, "OAUTHBEARER", List.of(login));
        return token -> Map.of("sub", validator.validate(token).principalName());
    }

    private static String causes(Throwable error) {
        String all = error.toString();
        return error.getCause() == null ? all : all + " <- " + causes(error.getCause());
    }

    public static void main(String[] arguments) throws Exception {
        String library = arguments[0];
        Map<String, Verifier> verifiers = new ConcurrentHashMap<>();
        ExecutorService pool = Executors.newFixedThreadPool(8);
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Map<String, Object> request = JSONObjectUtils.parse(line);
            String issuer = (String) request.get("issuer");
            String url = (String) request.get("url");
            Number lifetime = (Number) request.get("ttl");
            Double ttl = lifetime == null ? null : lifetime.doubleValue();
            Callable<Void> work = () -> {
                Map<String, Object> answer = new HashMap<>();
                answer.put("id", request.get("id"));
                try {
                    Verifier verifier = verifiers.computeIfAbsent(
                        (String) request.get("verifier"), name -> make(library, name, issuer, url, ttl));
                    answer.put("claims", verifier.verify((String) request.get("token")));
                    answer.put("ok", true);
                } catch (Exception error) {
                    answer.put("ok", false);
                    answer.put("error", causes(error));
                }
                String text = JSONObjectUtils.toJSONString(answer);
                synchronized (System.out) {
                    System.out.println(text);
                }
                return null;
            };
            pool.submit(work);
        }
        System.exit(0);
    }

    // One at a time, for Kafka's property is one of the whole program.
    private static synchronized Verifier make(
        String library, String name, String issuer, String url, Double ttl) {
        try {
            return switch (library) {
                case "kafka" -> kafka(name, issuer, url, ttl);
                case "spring" -> spring(issuer, url, ttl);
                default -> nimbus(issuer, url, ttl);
            };
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }
}
