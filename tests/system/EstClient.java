import java.io.FileInputStream;
import java.io.FileReader;
import java.io.FileWriter;
import java.net.URI;
import java.security.KeyStore;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.Set;
import javax.net.ssl.KeyManagerFactory;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseDefaultHostnameAuthorizer;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.util.Store;
import org.bouncycastle.util.io.pem.PemObject;

/**
 * Bouncy Castle's EST client: URL LABEL ROOT KEYSTORE CSR OUT OPERATION. The key store has no
 * password that matters. Prints how many certificates cacerts and the enrollment had.
 */
public class EstClient {
    private static final char[] PASSWORD = "password".toCharArray();

    public static void main(String[] arguments) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        URI url = URI.create(arguments[0]);
        FileInputStream root = new FileInputStream(arguments[2]);
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        TrustAnchor anchor =
            new TrustAnchor((X509Certificate) factory.generateCertificate(root), null);
        KeyStore keys = KeyStore.getInstance("PKCS12");
        keys.load(new FileInputStream(arguments[3]), PASSWORD);
        KeyManagerFactory managers = KeyManagerFactory.getInstance("PKIX");
        managers.init(keys, PASSWORD);
        JsseESTServiceBuilder builder = new JsseESTServiceBuilder(
            url.getHost(), url.getPort(), JcaJceUtils.getCertPathTrustManager(Set.of(anchor), null));
        builder.withKeyManagers(managers.getKeyManagers());
        builder.withHostNameAuthorizer(new JsseDefaultHostnameAuthorizer(Set.of()));
        builder.withLabel(arguments[1]);
        ESTService service = builder.build();

        int above = service.getCACerts().getCertificateStore().getMatches(null).size();
        int wanted = service.getCSRAttributes().getAttributesResponse().getRequirements().size();
        PKCS10CertificationRequest csr =
            (PKCS10CertificationRequest) new PEMParser(new FileReader(arguments[4])).readObject();
        EnrollmentResponse answer = switch (arguments[6]) {
            case "simpleenroll" -> service.simpleEnroll(false, csr, null);
            case "simplereenroll" -> service.simpleEnroll(true, csr, null);
            default -> service.simpleEnrollWithServersideCreation(csr, null);
        };
        Store<X509CertificateHolder> issued = answer.getStore();
        try (JcaPEMWriter out = new JcaPEMWriter(new FileWriter(arguments[5]))) {
            for (X509CertificateHolder certificate : issued.getMatches(null)) {
                out.writeObject(certificate);
            }
            PrivateKeyInfo key = answer.getPrivateKeyInfo();
            if (key != null) {
                out.writeObject(new PemObject("PRIVATE KEY", key.getEncoded()));
            }
        }
        System.out.println(above + " " + wanted + " " + issued.getMatches(null).size());
    }
}
